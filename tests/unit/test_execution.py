"""What a run tells: failures as sentences, progress as a fraction, folders that stay where they belong."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine import __version__
from engine.execution import environment
from engine.execution.failures import PlainError, explain_failure
from engine.execution.progress import Progress
from engine.execution.report import headline
from storage.folders import run_folder
from storage.measurements import Result


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "ran out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "ran out of memory"),
        (MemoryError(), "ran out of memory"),
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


def test_installed_code_is_known_by_its_version_not_by_the_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    packages = tmp_path / ".venv" / "site-packages"
    packages.mkdir(parents=True)
    monkeypatch.setattr(environment, "CODE_ROOT", packages)
    assert environment.code_version() == __version__
