"""A real lab for tests: a home, real workers, and the patience to wait for them without fixed times."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from engine.commands.run import queue_experiment, read_experiment
from storage.answers import all_answers, evaluated_checkpoints, open_answers
from storage.database import open_database
from storage.measurements import Result, list_results
from storage.representations import list_pictured, list_representations, pictured_layers
from storage.runs import Run, get_run
from tests.recordings import leave_out_recordings

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 400

# Small enough for a test, with everything in it: two relations, several epochs, branches, two languages.
SMALL = [
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 30}}]",
    "stage1.epochs=6",
    "stage2.facts=10",
    "evaluation.languages=[en, ja]",
    "evaluation.facts=12",
    "evaluation.choice.facts=6",
    "evaluation.max_new_tokens=12",
]


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value. Fails the test after `PATIENCE_SECONDS`."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s in vain for: {what}")


class Lab:
    """One home folder, its runs and its worker processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.db = open_database(home)
        leave_out_recordings(home)
        self._processes: list[subprocess.Popen[bytes]] = []

    def queue(self, overrides: list[str], seed: int = 1, preset: str = "quick") -> Run:
        """Queue a preset with overrides."""
        return queue_experiment(self.db, read_experiment(preset, overrides, seed))

    def worker(self, *options: str, clock: float = 0) -> subprocess.Popen[bytes]:
        """Start `python -m engine worker` on this home. `clock`: by how many seconds its clock is ahead."""
        command = [sys.executable, "-m", "engine", "worker", "--home", str(self.home), *options]
        log = (self.home / "worker.log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **self._ahead(clock)})
        self._processes.append(process)
        return process

    def _ahead(self, seconds: float) -> dict[str, str]:
        """Environment in which Python's clock is ahead."""
        if not seconds:
            return {}
        place = self.home / f"clock{seconds}"
        place.mkdir(exist_ok=True)
        code = f"import time\nclock = time.time\ntime.time = lambda: clock() + {seconds}\n"
        (place / "sitecustomize.py").write_text(code, encoding="utf-8")
        return {"PYTHONPATH": str(place)}

    def run(self, run_id: str) -> Run:
        """The run's row as it is now."""
        return get_run(self.db, run_id)

    def wait_for_end(self, run_id: str) -> Run:
        """The run once it is done, failed or cancelled."""
        return wait_until(lambda: (run := self.run(run_id)).ended and run, f"end of run {run_id}")

    def wait_for_fraction(self, run_id: str, fraction: float) -> None:
        """Wait until the run says that this much of it is done, or has ended."""

        def reached() -> bool:
            run = self.run(run_id)
            return run.ended or run.progress.get("fraction", 0) >= fraction

        wait_until(reached, f"{fraction:.0%} of run {run_id}")

    def training_process(self, worker: subprocess.Popen[bytes]) -> psutil.Process | None:
        """The training process that this worker has started, if there is one."""
        try:
            children = psutil.Process(worker.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        return next((c for c in children if "engine.execution.training_process" in " ".join(c.cmdline())), None)

    def outcome(self, run_id: str) -> tuple[list[Result], dict[str, list[Any]]]:
        """Everything that two equal runs must share: result rows, every answer, and what hidden states showed."""
        answers = open_answers(self.home / "runs" / run_id)
        stored: dict[str, list[Any]] = {c: all_answers(answers, c) for c in sorted(evaluated_checkpoints(answers))}
        stored["figures of hidden states"] = list_representations(answers)
        stored["pictured"] = [list_pictured(answers, layer) for layer in pictured_layers(answers)]
        return list_results(self.db, run_id), stored

    def leftovers(self) -> list[str]:
        """Command lines of processes that still work on this home."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.home) in line and "engine" in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(line)
        return found

    def close(self) -> None:
        """End every worker that still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
