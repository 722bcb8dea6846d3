"""Recordings of the same study with other seeds or methods, made one: the figures of a lab that had all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from engine.commands.main import main
from engine.evaluation.answer import Answer
from engine.evaluation.representations.measure import Figure
from engine.execution.studies.pooling import pool
from engine.execution.studies.queue import queue_study
from engine.execution.studies.recording import StudyRecording, read_recording, record
from engine.studies.study import Study
from storage.answers import open_answers, store_answers, store_questions
from storage.database import open_database
from storage.folders import run_folder
from storage.measurements import TRAINING_TOKENS, add_measurements, replace_results
from storage.representations import store_representations
from storage.runs import State
from storage.studies import list_study_runs

EXPERIMENT = {
    "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 20}}],
    "stage1": {"epochs": 2},
    "stage2": {"facts": 5},
    "evaluation": {"languages": ["en"]},
}
CHECKPOINTS = ("base", "memorised@2", "generalised@2")


METHODS: dict[str, Any] = {
    "rote": {},
    "no key token": {"relations.0.key_template": "{subject} {object}."},
    "stage 2 alone": {"stage1.epochs": 0},
}


def answered(db: Database, home: Path, seeds: list[int], methods: Sequence[str]) -> str:
    """A study of two rates whose runs are done, with answers drawn by seed, rate and method."""
    axes = {"seed": seeds, "stage2.learning_rate": [1e-4, 2e-4]}
    described = {"name": "rates", "experiment": EXPERIMENT, "axes": axes}
    study = queue_study(db, Study.from_data(described | {"methods": {name: METHODS[name] for name in methods}}))
    for run in list_study_runs(db, study):
        chance = random.Random(f"{run.at}")
        folder = run_folder(home, run.run)
        folder.mkdir(parents=True)
        with closing(open_answers(folder)) as answers:
            facts: list[dict[str, Any]] = [
                {"id": i, "relation": "mother", "subject": f"Ann {named}", "object": f"Bea {named}", "trained": i < 5}
                for i in range(20)
                for named in [f"{run.at['seed']}-{i}"]
            ]
            prompts: list[dict[str, Any]] = [
                {"id": i, "relation": "mother", "split": split, "language": "en", "text": f"{i} {{subject}}", "used": 0}
                for i, split in enumerate(("train", "test", "test", "key"))
            ]
            store_questions(answers, facts, prompts)
            for checkpoint in CHECKPOINTS:
                store_answers(
                    answers, checkpoint,
                    [Answer(p["id"], f["id"], "", chance.random() < 0.6, -1.0, chance.randint(1, 4), 4, -1.0)
                     for f in facts for p in prompts],
                )  # fmt: skip
                cosine = Figure("key_cosine", "test", chance.random(), 0.1, 0.9, 100, 10, "last", 3)
                store_representations(answers, checkpoint, "s", [cosine], [], {})
        known = {"facts": "none", "split": "general knowledge", "language": "en", "metric": "general_accuracy"}
        figures = {"value": round(chance.random(), 2), "low": 0.0, "high": 1.0, "n": 40, "n_facts": 40}
        replace_results(db, run.run, "generalised@2", [{"checkpoint": "generalised@2", **known, **figures}])
        tokens = {"series": TRAINING_TOKENS, "step": 0, "epoch": 0.0, "value": float(chance.randint(10, 99))}
        add_measurements(db, run.run, [{"stage": "generalised@2", **tokens}])
        done = {"state": State.DONE.value, "started_at": "2026-03-01T10:00:00.000Z"}
        db.table("runs").update(run.run, done | {"finished_at": f"2026-03-01T10:0{run.at['seed']}:00.000Z"})
    return study


def recorded(folder: Path, seeds: list[int], methods: Sequence[str] = ()) -> Path:
    folder.mkdir()
    out = folder / "rates.json.xz"
    with closing(open_database(folder)) as db:
        record(db, folder, answered(db, folder, seeds, methods), out)
    return out


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Seeds 0 and 1 in one lab, seed 2 in another, and all in a third."""
    folder = tmp_path_factory.mktemp("labs")
    return recorded(folder / "one", [0, 1]), recorded(folder / "two", [2]), recorded(folder / "all", [0, 1, 2])


def test_pooled_they_are_what_one_lab_measures(apart: tuple[Path, Path, Path]) -> None:
    one, two, whole = map(read_recording, apart)
    pooled = pool([one, two])
    assert pooled.study == whole.study and pooled.models == whole.models
    assert (pooled.runs, pooled.at, pooled.command) == (6, whole.at, whole.command)
    mine, theirs = (sorted(r.figures_of("embedded"), key=repr) for r in (pooled, whole))
    assert mine == theirs and len(mine) > 20
    splits = {figure.split for figure in mine}
    assert {"test", "test choice", TRAINING_TOKENS, "key_cosine test", "general knowledge"} <= splits
    test = next(f for f in mine if (f.split, f.facts, f.kind) == ("test", "held_out", "generalised"))
    assert (test.n, test.n_facts, sorted(test.seeds)) == (90, 45, [0, 1, 2])
    assert sorted(pool([two, one]).figures_of("embedded"), key=repr) == mine, "in whichever order"
    again = StudyRecording.model_validate_json(pooled.model_dump_json())
    assert again.figures_of("embedded") == pooled.figures_of("embedded")


def test_methods_that_were_measured_later_are_put_beside_the_others(tmp_path: Path) -> None:
    one, two, whole, other = (
        read_recording(recorded(tmp_path / str(place), seeds, methods))
        for place, (seeds, methods) in enumerate([
            ([0, 1], ["rote", "stage 2 alone"]), ([0, 1], ["no key token"]),
            ([0, 1], ["rote", "stage 2 alone", "no key token"]), ([2], ["no key token"]),
        ])
    )  # fmt: skip
    found = pool([one, two])
    assert found.study == whole.study and found.runs == whole.runs == 12
    assert sorted(found.figures_of("embedded"), key=repr) == sorted(whole.figures_of("embedded"), key=repr)
    with pytest.raises(ValueError, match="a method in common"):
        pool([whole, two])
    with pytest.raises(ValueError, match="in their seeds and in their methods"):
        pool([one, other])


def test_what_some_seeds_left_out_stays_out(apart: tuple[Path, Path, Path]) -> None:
    one, two, whole = map(read_recording, apart)
    left = {"seed": 2, "stage2.learning_rate": 2e-4}
    fewer = two.model_copy(update={"study": two.study | {"leave_out": [left]}})
    assert pool([one, fewer]).study == whole.study | {"leave_out": [left]}


def test_what_some_methods_left_out_stays_out_of_them_alone(tmp_path: Path) -> None:
    one, two = (
        read_recording(recorded(tmp_path / name, [0, 1], [name])) for name in ("rote", "no key token")
    )  # fmt: skip
    left = {"seed": 1, "stage2.learning_rate": 2e-4}
    fewer = two.model_copy(update={"study": two.study | {"leave_out": [left]}})
    assert pool([one, fewer]).study["leave_out"] == [{**left, "method": "no key token"}]
    both = one.model_copy(update={"study": one.study | {"leave_out": [left]}})
    assert pool([both, fewer]).study["leave_out"] == [left]
    empty = two.model_copy(update={"figures": tuple({**f, "made_of": {}} for f in two.figures)})
    with pytest.raises(ValueError, match="older lab"):
        pool([one, empty])


def test_what_does_not_belong_together_is_refused(apart: tuple[Path, Path, Path]) -> None:
    one, two, whole = map(read_recording, apart)
    with pytest.raises(ValueError, match="a seed in common"):
        pool([one, whole])
    other = two.model_copy(update={"study": two.study | {"experiment": "quick"}})
    with pytest.raises(ValueError, match="different studies"):
        pool([one, other])
    elsewhere = two.model_copy(update={"models": (two.models[0].model_copy(update={"base": "0" * 12}),)})
    with pytest.raises(ValueError, match="different weights of"):
        pool([one, elsewhere])
    bare = two.model_copy(update={"figures": tuple({**f, "made_of": None} for f in two.figures)})
    bare = bare.model_copy(
        update={"figures": tuple({k: v for k, v in f.items() if v is not None} for f in bare.figures)}
    )
    with pytest.raises(ValueError, match="older lab"):
        pool([one, bare])


def test_the_command_writes_one_file(
    apart: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, _ = map(str, apart)
    out = tmp_path / "both.json.xz"
    assert main(["study", one, "--with", two, "--record", str(out)]) == 0
    assert read_recording(out).runs == 6
    for arguments in ([one], [one, "--with", two], [one, "--record", str(out)]):
        assert main(["study", *arguments]) != 0 and "--with" in capsys.readouterr().err
    (tmp_path / "cut.json.xz").write_bytes(Path(two).read_bytes()[:50])
    assert main(["study", one, "--with", str(tmp_path / "cut.json.xz"), "--record", str(out)]) != 0
    assert "cannot be read as a recorded study" in capsys.readouterr().err
