"""What a run tells: failures as sentences, progress as a fraction, folders that stay where they belong."""

from __future__ import annotations

import errno
import json
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.shared.lab import Lab
from engine import __version__
from engine.evaluation.answer import Answer
from engine.evaluation.questions import fact_rows, prompt_rows, questions_for
from engine.evaluation.summary import summarise
from engine.execution import environment
from engine.execution.failures import PlainError, explain_failure
from engine.execution.progress import Progress
from engine.execution.report import headline, lacking, results_document, with_twins
from engine.execution.run_file import write_run_file
from storage.answers import open_answers, store_answers, store_questions
from storage.database import open_database
from storage.folders import run_folder
from storage.measurements import Result, list_results, replace_results
from storage.runs import add_run
from tests.unit.tiny_models import tiny_experiment


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "accelerator ran out of memory"),
        (torch.AcceleratorError("CUDA error: out of memory", 2), "accelerator ran out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "accelerator ran"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "machine ran out of memory",
        ),
        (RuntimeError("[enforce fail] not enough memory: you tried to allocate 9 bytes"), "machine ran out of"),
        (MemoryError(), "machine ran out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (sqlite3.OperationalError("database or disk is full"), "disk is full"),
        (RuntimeError("SafetensorError: IoError: No space left on device (os error 28)"), "disk is full"),
        (PermissionError(errno.EACCES, "denied", "/data/model"), "/data/model"),
        (ValueError("the folder is not there: choose another"), "choose another."),
        (PlainError("Two\nlines."), "Two lines."),
        (KeyError("x"), "unforeseen"),
    ],
)
def test_every_failure_is_one_sentence_that_helps(error: Exception, words: str) -> None:
    sentence = explain_failure(error)
    assert words in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_progress_grows_to_one_and_tells_the_time_left() -> None:
    told: list[dict] = []
    clock = [100.0]
    progress = Progress(1000, told.append, clock=lambda: clock[0])
    progress.skip(500)
    for _ in range(5):
        clock[0] += 1
        progress.advance(100, message="working")
    assert [t["fraction"] for t in told] == [0.6, 0.7, 0.8, 0.9, 1.0]
    # 100 passes a second in this attempt: what was skipped must not make it look faster.
    assert told[-2]["seconds_left"] == pytest.approx(1.0)
    assert told[-1]["seconds_left"] == 0


def test_nothing_is_done_while_the_total_is_unknown() -> None:
    told: list[dict] = []
    Progress(0, told.append).advance(0, force=True, message="Loading")
    assert told[0]["fraction"] == 0


def test_progress_is_told_at_most_twice_a_second() -> None:
    told: list[dict] = []
    clock = [100.0]
    progress = Progress(1000, told.append, clock=lambda: clock[0])
    for _ in range(100):
        clock[0] += 0.01
        progress.advance(1)
    assert len(told) <= 3


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "a b", "."])
def test_only_ids_of_runs_become_folders(name: str) -> None:
    with pytest.raises(ValueError):
        run_folder(Path("/home"), name)


def test_the_headline_is_of_held_out_facts_of_one_checkpoint_and_language() -> None:
    row = Result("generalised@3", "held_out", "train", "en", "generation_accuracy", 0.5, 0.4, 0.6, 10, 5)
    others = [replace(row, checkpoint="base"), replace(row, facts="trained"), replace(row, language="de")]
    figures = headline([*others, row, replace(row, metric="choice_accuracy")], "generalised@3", "en")
    assert figures == {"train": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "n_facts": 5}}
    twin = replace(row, metric="generation_accuracy_unaided")
    assert headline([row, twin], "generalised@3", "en") == figures, "the same is not said twice"
    aloud = headline([row, replace(twin, value=0.1)], "generalised@3", "en")
    assert aloud["train"]["value"] == 0.5 and aloud["train"]["unaided"]["value"] == 0.1


def test_a_run_of_an_older_lab_has_its_twin_made_of_its_answers(tmp_path: Path) -> None:
    experiment = tiny_experiment("embedded")
    data = experiment.model_dump(mode="json")
    db = open_database(tmp_path)
    run = add_run(db, name="old", experiment=data, model="embedded", seed=0)
    facts, key = fact_rows(experiment), experiment.relations[0].key_token
    answers = open_answers(run_folder(tmp_path, run.id))
    store_questions(answers, facts, prompt_rows(experiment))
    now: list[Result] = []
    for checkpoint, before in (("base", ""), ("memorised@1", f"{key} ")):
        given = [
            Answer(q.prompt, q.fact, f"{before}{q.object}.", True, -0.1)
            for q in questions_for(experiment, "base")
        ]  # fmt: skip
        store_answers(answers, checkpoint, given)
        rows = summarise(given, experiment, checkpoint)
        now += [Result(**row) for row in rows]
        replace_results(db, run.id, checkpoint, [r for r in rows if r["metric"] != "generation_accuracy_unaided"])
    answers.close()
    old = list_results(db, run.id)
    assert lacking(old) == ("base", "memorised@1") and lacking(now) == ()
    assert with_twins(old, run, tmp_path) == now
    twins = {r.checkpoint: r.value for r in now if r.metric == "generation_accuracy_unaided"}
    assert twins == {"base": 1, "memorised@1": 0}
    lab = Lab(tmp_path)
    assert lab.results(run) == now and lab.key_tokens(run.id) == (key,)
    assert len(results_document(db, tmp_path, run)["rows"]) == len(now)
    (run_folder(tmp_path, run.id) / "answers.db").unlink()
    assert with_twins(old, run, tmp_path) == old, "without answers it is not measured"
    db.close()


def test_installed_code_is_known_by_its_version_not_by_the_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    packages = tmp_path / ".venv" / "site-packages"
    packages.mkdir(parents=True)
    monkeypatch.setattr(environment, "CODE_ROOT", packages)
    assert environment.code_version() == __version__


def test_the_file_of_a_run_is_replaced_whole(tmp_path: Path) -> None:
    with closing(open_database(tmp_path)) as db:
        run = add_run(db, name="one", experiment={}, model="embedded", seed=1)
    write_run_file(tmp_path, run, {"attempt": "the first"})
    with (tmp_path / "run.json").open() as first:
        write_run_file(tmp_path, run, {})
        assert json.loads(first.read())["environment"] == {"attempt": "the first"}, "who reads it reads one of them"
    assert json.loads((tmp_path / "run.json").read_text())["environment"] == {}
