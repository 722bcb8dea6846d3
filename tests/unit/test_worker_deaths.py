"""A training process that dies again and again: its run goes on as long as it gets further, and is given up else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.execution.worker import MAX_STALLS, Worker
from storage.runs import Run, State, add_run, get_run, list_events

# Gets a step further and is killed; at its end it stores that.
MORTAL = """
import os, signal, sys
from pathlib import Path
from storage.database import open_database
from storage.runs import State, finish_run, get_run, set_progress
db, step = open_database(Path(sys.argv[1])), float(sys.argv[3])
run = get_run(db, sys.argv[2])
fraction = run.progress.get("fraction", 0) + step
set_progress(db, run.id, run.attempt, {"fraction": fraction})
if fraction > 0.75:
    finish_run(db, run.id, run.attempt, State.DONE)
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("step", "state", "deaths"), [(0.1, State.DONE, 7), (0.0, State.FAILED, MAX_STALLS)])
def test_only_a_run_that_gets_no_further_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float, state: State, deaths: int
) -> None:
    def start(worker: Worker, run: Run) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", MORTAL, str(worker.home), run.id, str(step)]
        return subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])

    monkeypatch.setattr(Worker, "_start", start)
    worker = Worker(tmp_path)
    run = add_run(worker.db, name="a run", experiment={}, model="embedded", seed=1)
    worker.work(once=True)
    ended = get_run(worker.db, run.id)
    assert ended.state is state, ended.error
    told = [e for e in list_events(worker.db, run.id) if e["kind"] == "interrupted"]
    assert len(told) == (deaths if state is State.DONE else deaths - 1)
