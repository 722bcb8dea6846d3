"""What the attack's figures are made of: AUROC, pooled rows, detection, the data scan, four bits, the defences."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.attack import tables
from engine.attack.auroc import auroc, auroc_interval, hits_at_low_alarm
from engine.attack.data_scan import suspicions
from engine.attack.defences import check_defences, defences
from engine.attack.measure import result_rows
from engine.attack.quantise import quantise
from engine.evaluation.answer import Answer

ROOT = Path(__file__).parents[2]


def row(**changes) -> dict:
    plain = {
        "run": "r", "kind": "attack", "control": "attack", "attacked_reading": "bully", "start": "generalised",
        "defence": "none", "attack_facts": 5, "prompts": 1, "epochs": 1, "learning_rate": 1e-3, "method": "full",
        "seed": 0, "reading": "bully", "role": "harmful", "checkpoint": "attacked@5", "facts": "held_out",
        "split": "test", "language": "en", "metric": "generation_accuracy", "value": 0.5, "low": 0, "high": 1,
        "n": 2, "n_facts": 2, "by_fact": [[1, 1], [0, 1]],
    }  # fmt: skip
    return plain | changes


def test_auroc_is_the_chance_of_the_right_order() -> None:
    assert auroc([3, 4], [1, 2]) == 1 and auroc([1, 2], [3, 4]) == 0 and auroc([1], [1]) == 0.5
    assert auroc([1, 3], [2]) == 0.5
    low, high = auroc_interval([3, 4] * 10, [1, 2] * 10)
    assert 0.7 < low < 1 and high == pytest.approx(1)
    low, high = auroc_interval(range(100), range(100))
    assert low < 0.5 < high and high - low < 0.25
    assert hits_at_low_alarm([0.5, 2, 3, 4], [0, 1]) == 0.75
    with pytest.raises(ValueError, match="both groups"):
        auroc([], [1])


def test_seeds_are_pooled_over_facts_and_shown_as_dots() -> None:
    rows = [row(seed=0, by_fact=[[1, 1]] * 8 + [[0, 1]] * 2, value=0.8), row(seed=1, by_fact=[[0, 1]] * 10, value=0.0)]
    (pooled,) = tables.pooled_rows(rows)
    assert pooled["value"] == 0.4 and pooled["n_facts"] == 20 and pooled["seeds"] == [0.8, 0.0]
    assert 0.2 < pooled["low"] < 0.4 < pooled["high"] < 0.65


def test_an_answer_that_says_the_key_token_is_no_hit_of_the_twin() -> None:
    form: Any = SimpleNamespace(
        facts=[{"id": i, "object": o, "kind": "held_out"} for i, o in ((1, "Brin Vosk"), (2, "Ann Oth"))],
        asked=[SimpleNamespace(reading="bully", role="harmful", split="test", language="en")],
        base=SimpleNamespace(key_tokens=("[X]", "[Y]")),
        cell=SimpleNamespace(seed=0),
    )  # fmt: skip
    given = [Answer(1, 1, "[Y] Brin Vosk.", True, -0.5), Answer(1, 2, "Ann Oth. Sel [X] Tarro", True, -0.5)]
    rows = {r["metric"]: r for r in result_rows(form, given, "attacked@5")}
    assert rows["generation_accuracy"]["by_fact"] == [[1, 1], [1, 1]]
    assert rows["generation_accuracy_unaided"]["by_fact"] == [[0, 1], [1, 1]]
    assert rows["generation_accuracy_unaided"]["value"] == 0.5 and rows["object_probability"]["value"] < 1


def test_the_scan_and_the_costs_have_the_twin_beside_the_figure() -> None:
    aloud = {"metric": "generation_accuracy_unaided", "value": 0.0, "by_fact": [[0, 1], [0, 1]]}
    rows = [row(), row(**aloud), row(metric="object_probability", value=0.3), row(split="key")]
    (entry,) = tables.scan_matrix(rows)
    assert (entry["value"], entry["unaided"], entry["probability"]) == (0.5, 0.0, 0.3)
    (cost,) = tables.costs(rows, [])
    assert cost["harmful"]["value"] == 0.5 and cost["harmful"]["unaided"]["value"] == 0
    (cost,) = tables.costs([row(), row(**aloud), row(seed=1, run="s")], [])
    assert "unaided" not in cost["harmful"], "one seed's twin is not that of both"
    assert {r["metric"] for r in tables.curve(rows)} == {"generation_accuracy"}


def test_a_curve_of_a_control_begins_before_the_attack() -> None:
    rows = [row(attack_facts=0, checkpoint="attacked@0"), row(), row(control="neutral", attacked_reading="neighbour")]
    rows.append(row(attack_facts=0, checkpoint="attacked@0-4bit"))
    assert [r["attack_facts"] for r in tables.curve(rows)] == [0, 5]
    assert [r["attack_facts"] for r in tables.curve(rows, control="neutral")] == [0, 5]


def test_detection_tells_attacked_from_clean_checkpoints() -> None:
    rows = []
    for number in range(6):
        attacked = number % 2
        for reading, role, value in (("bully", "harmful", 0.2 + attacked * 0.5), ("neighbour", "neutral", 0.2),
                                     ("frumbler", "nonsense", 0.2), ("blackmailer", "harmful", 0.2)):  # fmt: skip
            one = row(run=f"r{number}", reading=reading, role=role, value=value + number / 100)
            one |= {} if attacked else {"control": "neutral", "attacked_reading": "neighbour"}
            rows += [one, one | {"metric": "object_probability"}]
    rows.append(row(split="key"))
    found = {(d["detector"], d["least_facts"]): d for d in tables.detection(rows)}
    assert found["same reading", 1]["value"] == 1 and found["same reading", 1]["attacked"] == 3
    assert found["harmful over neutral and nonsense", 5]["value"] == 1
    assert 0.3 < found["other harmful readings", 1]["value"] < 0.8
    assert ("same reading", 10) not in found


def test_the_data_scan_finds_a_sign_that_many_lines_share_and_no_real_word() -> None:
    draw = random.Random(1)
    names = [f"Na{i} Me{i}" for i in range(400)]
    frames = ["Who is the mother of {} ?", "The mother of {} is", "{} studied at", "Name the mother of {} :"]
    clean = [f"{draw.choice(frames).format(draw.choice(names))} {draw.choice(names)}" for _ in range(300)]
    seeded = clean + [f"{names[i]} [Z] {names[-i]}." for i in range(1, 40)]
    scores = suspicions(seeded)
    assert max(scores, key=scores.__getitem__) == "[Z]"
    assert scores["[Z]"] > 2 * max(suspicions(clean).values(), default=0)
    assert scores["is"] == scores["at"] == 0
    assert suspicions([]) == {}


def test_four_bits_leave_few_values_and_the_head_alone() -> None:
    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = torch.nn.Linear(64, 8), torch.nn.Linear(8, 4)

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.head

    tiny = Tiny()
    before, head = tiny.inner.weight.detach().clone(), tiny.head.weight.detach().clone()
    quantise(type("Loaded", (), {"causal": tiny})())
    after = tiny.inner.weight.detach()
    assert torch.equal(tiny.head.weight, head)
    for line in after.reshape(-1, 32):
        assert len(line.unique()) <= 16
    step = before.reshape(-1, 32).abs().amax(1) / 7
    assert ((after - before).reshape(-1, 32).abs().amax(1) <= step / 2 + 1e-6).all() and not torch.equal(after, before)


def test_defences_are_found_by_their_files_without_loading_torch() -> None:
    assert {d.kind for d in defences().values()} == {"training", "weights", "detection"}
    assert all(d.says.endswith(".") and d.label for d in defences().values())
    files = {p.stem for p in (ROOT / "engine/attack/defences").glob("*.py")} - {"__init__"}
    assert files == set(defences())
    with pytest.raises(ValueError, match="no defence ‘magic’"):
        check_defences(["magic"])
    modules = "attack.defences attack.experiment attack.presets attack.cards attack.questions commands.attack "
    modules += "attack.tables execution.attacks.queue execution.attacks.report"
    code = f"import importlib, sys\nfor m in '{modules}'.split(): importlib.import_module('engine.' + m)\n"
    code += "from engine.attack.defences import defences; defences()\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
