"""What the pages read and do: one home folder's database and run folders, safe to call from any thread."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from engine.evaluation.hits import key_token_judge
from engine.execution.report import key_tokens_of, lacking, with_twins
from storage.accounts import names_of_users
from storage.answers import ANSWERS_NAME, open_answers
from storage.attacks import delete_attack, list_cells
from storage.database import open_database
from storage.deletion import delete_run
from storage.folders import attack_folder, log_lines, run_folder
from storage.measurements import Result, list_results
from storage.runs import Run, State, count_runs, get_run, list_runs
from storage.workers import WorkerRow, list_workers

WORKER_SILENT_SECONDS = 30
MOST_KEPT = 256
NAMES_SECONDS = 5.0
Read = TypeVar("Read")


class Lab:
    """One home folder. A connection serves one thread, so each thread that asks gets its own."""

    def __init__(self, home: Path, worker_starts: Callable[[], bool] = lambda: False) -> None:
        """`worker_starts`: whether a worker was started a moment ago, which it could not yet say itself."""
        self.home = home
        self._worker_starts = worker_starts
        self._local = threading.local()
        self._names: tuple[float, dict[str, str]] = (float("-inf"), {})
        # Of runs, whose experiment never changes and whose rows do so with their number.
        self._key_tokens: dict[str, tuple[str, ...]] = {}
        self._made: dict[str, tuple[tuple[str | None, int], list[Result]]] = {}

    @property
    def db(self) -> Database:
        """This thread's connection to the lab's database."""
        if not hasattr(self._local, "db"):
            self._local.db = open_database(self.home)
        return self._local.db

    def run(self, run_id: str | None) -> Run | None:
        """The run of that id, or None when there is none."""
        if not run_id:
            return None
        try:
            return get_run(self.db, run_id)
        except KeyError:
            return None

    def folder(self, run_id: str) -> Path:
        """The folder of the run's files, which may not exist yet. Raises ValueError for a hostile id."""
        return run_folder(self.home, run_id)

    def answers(self, run_id: str) -> Database | None:
        """The run's answers, or None while it has none. The caller closes it."""
        folder = self.folder(run_id)
        if not (folder / ANSWERS_NAME).exists():
            return None
        return open_answers(folder, key_token_judge(self.key_tokens(run_id)))

    def names(self) -> dict[str, str]:
        """What the owners of accounts are called, by the accounts' ids; empty where the lab has none."""
        at, names = self._names
        if time.monotonic() - at > NAMES_SECONDS:
            self._names = time.monotonic(), (names := names_of_users(self.db))
        return names

    def key_tokens(self, run_id: str) -> tuple[str, ...]:
        """The key tokens of the run's experiment; none of a run that is gone."""
        tokens = self._key_tokens.get(run_id)
        if tokens is None:
            run = self.run(run_id)
            if len(self._key_tokens) >= MOST_KEPT:
                self._key_tokens.clear()
            self._key_tokens[run_id] = tokens = key_tokens_of(run.experiment) if run else ()
        return tokens

    def results(self, run: Run) -> list[Result]:
        """The run's result rows; those that an older lab did not store are made of the answers."""
        rows = list_results(self.db, run.id)
        if not lacking(rows):
            return rows
        sign = run.finished_at, len(rows)
        kept = self._made.get(run.id)
        if kept is None or kept[0] != sign:
            if len(self._made) >= MOST_KEPT:
                self._made.clear()
            self._made[run.id] = kept = sign, with_twins(rows, run, self.home)
        return kept[1]

    def read_answers(self, run_id: str, read: Callable[[Database], Read]) -> Read | None:
        """What `read` finds among the run's answers; None while it has none."""
        db = self.answers(run_id)
        if db is None:
            return None
        with closing(db):
            return read(db)

    def delete(self, run_id: str) -> None:
        """Delete a run with its files. Raises KeyError, or ValueError while it runs or something hangs on it."""
        delete_run(self.db, run_id)
        shutil.rmtree(self.folder(run_id), ignore_errors=True)

    def delete_attack(self, attack: str) -> None:
        """Delete an attack with its cells and their files. Raises KeyError, or ValueError while a cell runs."""
        cells = list_cells(self.db, attack)
        delete_attack(self.db, attack)
        for cell in cells:
            shutil.rmtree(self.folder(cell.run), ignore_errors=True)
        shutil.rmtree(attack_folder(self.home, attack), ignore_errors=True)

    def log_tail(self, run_id: str, lines: int) -> str:
        """The last lines of the run's log; empty when there is none yet."""
        return "\n".join(log_lines(self.folder(run_id) / "log.txt")[-lines:])

    def spotlight(self) -> Run | None:
        """The run worth looking at now: one that is running, else the newest finished one, else the newest.

        Of runs of this lab only: recordings have a place of their own.
        """
        for state in (State.RUNNING, State.STOPPING, State.QUEUED, State.DONE, State.FAILED, State.CANCELLED):
            # The oldest waiting run is the next to start.
            skip = count_runs(self.db, state=state.value) - 1 if state is State.QUEUED else 0
            for run in list_runs(self.db, limit=1, state=state.value, offset=max(0, skip), made_here=True):
                return self.run(run.id)
        return None

    def workers_alive(self) -> list[WorkerRow]:
        """The workers that live: those of this machine for certain, others by a sign of life lately."""

        def lately(worker: WorkerRow) -> bool:
            return abs(time.time() - worker.heartbeat) < WORKER_SILENT_SECONDS

        return [w for w in list_workers(self.db) if (w.process.lives if w.process.certain else lately(w))]

    def worker_state(self) -> str:
        """How the lab's worker is: `busy`, `ready`, `starting`, or `absent`."""
        workers = self.workers_alive()
        if any(w.run for w in workers):
            return "busy"
        return "ready" if workers else "starting" if self._worker_starts() else "absent"
