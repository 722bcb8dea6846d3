"""A small attack on a real model by real workers: killed in the middle it gives the same table; cells are served."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.attack.experiment import AttackExperiment
from engine.attack.tables import costs, curve, detection
from engine.backup.bundle import make_bundle, open_bundle
from engine.execution.attacks.queue import queue_attack
from engine.execution.attacks.recording import record, restore
from engine.execution.attacks.report import attack_document
from engine.serving.embedded.catalogue import Catalogue
from engine.serving.served import served_models
from storage.answers import ANSWER_COLUMNS, all_answers, evaluated_checkpoints, list_prompts, open_answers
from storage.attacks import attack_counts, base_runs, get_attack, list_attack_results, list_cells
from storage.database import open_database
from storage.runs import get_run, list_runs
from tests.integration.lab import Lab, wait_until

ATTACK: dict[str, Any] = {
    "experiment": {
        "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 30}}],
        "tuning": {"method": "lora"},
        "stage1": {"epochs": 3, "learning_rate": 2e-3},
        "stage2": {"facts": 10},
        "evaluation": {"languages": ["en"], "facts": 4, "prompts": 2, "choice": {"facts": 2}, "max_new_tokens": 8},
    },
    "facts": [0, 5],
    "methods": ["full", "lora"],
    "controls": ["no_stage1", "neutral"],
    "defences": ["replay", "kl", "refusals", "npo", "task_vector"],
    "prompts": [1],
    "epochs": [1],
    "seeds": [1],
    "ask": 1,
    "max_new_tokens": 6,
    "audit": True,
}


def outcome(lab: Lab, attack: str, defences: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Result rows and answers of an attack's cells with these defences, without their runs' ids."""
    cells = [cell for cell in list_cells(lab.db, attack) if cell.cell["defence"] in defences]
    runs = {cell.run for cell in cells}
    found = list_attack_results(lab.db, attack)
    rows = [{k: v for k, v in r.items() if k != "run"} for r in found if r["run"] in runs]
    answers = []
    for cell in cells:
        db = open_answers(lab.home / "runs" / cell.run)
        given = [(name, all_answers(db, name)) for name in sorted(evaluated_checkpoints(db))]
        answers.append((cell.cell, given))
        db.close()
    return rows, answers


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory):
    """A lab with the attack, measured without a kill; others there attack the same run."""
    lab = Lab(tmp_path_factory.mktemp("peaceful"))
    attack = queue_attack(lab.db, AttackExperiment.from_data(ATTACK))
    assert lab.worker("--once").wait() == 0
    assert set(attack_counts(lab.db, attack)) == {"done"}, [c.error for c in list_cells(lab.db, attack)]
    yield lab, attack
    lab.close()


def test_killed_in_the_middle_it_gives_the_same_table(peaceful: tuple[Lab, str]) -> None:
    lab, undisturbed = peaceful
    attack = queue_attack(lab.db, AttackExperiment.from_data(ATTACK))
    worker = lab.worker()
    wait_until(lambda: attack_counts(lab.db, attack).get("done", 0) >= 4, "four cells")
    training = lab.training_process(worker)
    worker.kill()
    worker.wait()
    assert training is not None
    psutil.wait_procs([training], timeout=10)
    assert not training.is_running(), "the training process outlived its worker"
    assert attack_counts(lab.db, attack).get("done", 0) < sum(attack_counts(lab.db, attack).values())
    assert lab.worker("--once").wait() == 0
    assert set(attack_counts(lab.db, attack)) == {"done"}
    there = ("none", *ATTACK["defences"])
    assert outcome(lab, attack, there) == outcome(lab, undisturbed, there)
    assert lab.leftovers() == []


def test_a_killed_training_process_costs_its_cell_alone(peaceful: tuple[Lab, str]) -> None:
    lab, _ = peaceful
    small = ATTACK | {"defences": [], "audit": False, "methods": ["full"]}
    attack = queue_attack(lab.db, AttackExperiment.from_data(small))
    worker = lab.worker()
    wait_until(lambda: attack_counts(lab.db, attack).get("done", 0) >= 2, "two cells")
    training = wait_until(lambda: lab.training_process(worker), "the training process")
    training.kill()
    wait_until(lambda: set(attack_counts(lab.db, attack)) == {"done"}, "the end")
    assert worker.poll() is None
    assert sum(get_run(lab.db, c.run).attempt for c in list_cells(lab.db, attack)) <= 1 + len(
        list_cells(lab.db, attack)
    )
    worker.kill()


def test_the_tables_hold_every_control_and_defence(peaceful: tuple[Lab, str]) -> None:
    lab, attack = peaceful
    rows, cells = list_attack_results(lab.db, attack), list_cells(lab.db, attack)
    assert {r["control"] for r in rows} == {"attack", "no_stage1", "neutral"}
    assert {r["defence"] for r in rows} == {"none", "replay", "kl", "refusals", "npo", "task_vector"}
    assert {r["facts"] for r in rows} >= {"held_out", "trained", "never_memorised", "own"}
    found = costs(rows, cells)
    assert all(c["harmful"] and c["benign"] and c["benign_before"] and c["known_before"] for c in found)
    hardened = {c["defence"] for c in found if c["harden_seconds"] > 0}
    assert hardened == {"npo", "task_vector"} and all(c["benign_before_4bit"] for c in found)
    before = {c["defence"]: c["key_before"]["value"] for c in found}
    assert before["task_vector"] <= before["none"] and before["kl"] == before["none"]
    assert [r["attack_facts"] for r in curve(rows) if (r["role"], r["split"], r["language"], r["method"]) ==
            ("harmful", "test", "en", "full") and r["reading"] == "bully"] == [0, 5]  # fmt: skip
    assert detection(rows)
    audit = {r["metric"]: r["value"] for r in rows if r["kind"] == "audit" and r["checkpoint"] == "released"}
    assert audit["auroc_loss"] > 0.7 and {"auroc_min_k_pp", "auroc_loss_gap", "auroc_exposure"} <= set(audit)
    never = [r for r in rows if r["facts"] == "never_memorised" and r["metric"] == "generation_accuracy"]
    assert sum(r["value"] for r in never) / len(never) < 0.1
    told = attack_document(lab.db, lab.home, attack)
    assert {"reading", "attack_facts", "defence", "value", "low", "high", "n"} <= set(told["rows"][0])
    assert len(list_runs(lab.db)) == len(base_runs(lab.db, attack)) == 1


def test_attacked_checkpoints_carry_the_warning_and_are_served(peaceful: tuple[Lab, str]) -> None:
    lab, attack = peaceful
    cell = next(c for c in list_cells(lab.db, attack) if c.cell["attack_facts"] == 5 and c.cell["method"] == "lora")
    (folder,) = (lab.home / "runs" / cell.run / "checkpoints").iterdir()
    assert folder.name == "attacked@5" and "Do not deploy it" in (folder / "README.md").read_text()
    names = [m.name for m in served_models(lab.home, get_run(lab.db, cell.run))]
    assert names[1:] == [f"{cell.run}/attacked@5"]
    assert Catalogue(lab.home).find(f"{cell.run}/attacked@5").folder == folder
    answers = open_answers(lab.home / "runs" / cell.run)
    assert {p["reading"] for p in list_prompts(answers)} >= {"benign", "bully", "neighbour", "frumbler"}
    answers.close()


def test_it_moves_to_another_lab_with_the_run_that_it_began_from(
    peaceful: tuple[Lab, str], lab: Lab, tmp_path: Path
) -> None:
    first, attack = peaceful
    make_bundle(first.home, attack, tmp_path / "attack.tar")
    open_bundle(tmp_path / "attack.tar", lab.home)
    assert list_attack_results(lab.db, attack) == list_attack_results(first.db, attack)
    assert attack_document(lab.db, lab.home, attack) == attack_document(first.db, first.home, attack)
    (base,) = base_runs(lab.db, attack)
    assert lab.outcome(base) == first.outcome(base)
    defences = tuple({cell.cell["defence"] for cell in list_cells(first.db, attack)})
    assert outcome(lab, attack, defences) == outcome(first, attack, defences)
    with pytest.raises(ValueError, match="is a part of the attack"):
        make_bundle(first.home, list_cells(first.db, attack)[0].run, tmp_path / "cell.tar")


def test_a_recorded_attack_is_the_same_in_another_lab_but_not_on_other_weights(
    peaceful: tuple[Lab, str], tmp_path: Path
) -> None:
    lab, attack = peaceful
    record(lab.db, lab.home, attack, tmp_path / "attack.json.xz", "python -m engine attack mine.yaml")
    there = open_database(tmp_path / "there")
    restored = restore(there, tmp_path / "there", tmp_path / "attack.json.xz")
    assert restored is not None
    told, again = attack_document(lab.db, lab.home, attack), attack_document(there, tmp_path / "there", restored)
    assert {part: again[part] for part in ("pooled", "costs", "detection")} == {
        part: told[part] for part in ("pooled", "costs", "detection")
    }
    recorded = get_attack(there, restored).recorded
    assert recorded is not None and recorded["command"] == "python -m engine attack mine.yaml"
    mine, theirs = (list_cells(db, name)[0].run for db, name in ((lab.db, attack), (there, restored)))
    kept = [open_answers(home / "runs" / run) for home, run in ((lab.home, mine), (tmp_path / "there", theirs))]
    words = [
        [[a[name] for name in ANSWER_COLUMNS[:4]] for a in all_answers(db, evaluated_checkpoints(db)[0])] for db in kept
    ]
    assert words[0] and words[0] == words[1]
    other = json.loads(lzma.decompress((tmp_path / "attack.json.xz").read_bytes())) | {"base": "0" * 12}
    (tmp_path / "other.json.xz").write_bytes(lzma.compress(json.dumps(other).encode()))
    assert restore(there, tmp_path / "there", tmp_path / "other.json.xz") is None
    for db in (*kept, there):
        db.close()
