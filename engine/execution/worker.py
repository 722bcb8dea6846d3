"""The worker: takes runs from the queue and watches over the process that trains each.

    python -m engine worker --home DIR

It imports no torch and writes nothing but the run's row, so it survives what kills a training. When it is killed
itself, the training process ends with it, and the next worker goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from sqlite_utils import Database

from engine import CODE_ROOT
from engine.execution import training_process
from engine.logs import set_up_logs
from engine.parent import end_with_parent
from storage.database import open_database
from storage.folders import log_lines, run_folder
from storage.processes import ProcessName
from storage.runs import (
    LEASE_SECONDS,
    LostRunError,
    Run,
    State,
    add_event,
    claim_run,
    expire_lease,
    finish_run,
    get_run,
    held_run,
    record_stall,
    release_run,
    renew_lease,
)
from storage.workers import WorkerRow, beat, list_workers, remove_worker

logger = logging.getLogger("engine.execution.worker")

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
POLL_SECONDS = 0.5
STOP_PATIENCE_SECONDS = 20.0
# Deaths of the training process in a row, without progress in between, after which a run is given up.
MAX_STALLS = 5
MAX_OUT_OF_MEMORY = 2
PROGRESS_WORTH_A_RETRY = 0.01


class Registration:
    """This process in the table of workers, and what it knows of the others there."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._process = ProcessName.of()
        self._beaten = float("-inf")
        self._seen: dict[str, tuple[float, float]] = {}  # worker → its last heartbeat, and when that came, by our clock

    def beat(self, run: str | None, force: bool = False, db: Database | None = None) -> None:
        """Say that this process lives, at most every few seconds. `db`: the calling thread's, if that is another."""
        if force or time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            beat(db or self.db, worker=self.id, process=self._process, run=run)

    def release_dead_workers(self) -> None:
        """Free the runs of workers that are gone: at once those of this machine, others after a long silence."""
        for worker in list_workers(self.db):
            if worker.id != self.id and self._gone(worker):
                expire_lease(self.db, worker.id)
                remove_worker(self.db, worker.id)

    def _gone(self, worker: WorkerRow) -> bool:
        if worker.process.certain and not worker.process.lives:
            return True
        # Clocks are set, and those of two machines differ: what counts is that we saw no beat for long.
        beat, since = self._seen.get(worker.id, (None, 0.0))
        if beat != worker.heartbeat:
            self._seen[worker.id] = (worker.heartbeat, time.monotonic())
            return False
        return time.monotonic() - since > SILENT_SECONDS


class LeaseKeeper:
    """Renews the lease of a run, and its worker's beat, from a thread: for a process that carries the run out itself.

    with LeaseKeeper(home, registration, run): …
    """

    def __init__(self, home: Path, worker: Registration, run: Run) -> None:
        self._home, self._worker, self._run, self._end = home, worker, run, threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keep-lease", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _keep(self) -> None:
        with contextlib.closing(open_database(self._home)) as db:
            while not self._end.wait(BEAT_SECONDS):
                try:
                    self._worker.beat(self._run.id, db=db)
                    renew_lease(db, self._run.id, self._run.attempt, LEASE_SECONDS)
                except LostRunError:
                    return
                except sqlite3.Error:
                    logger.exception("the lease could not be renewed; trying again")


class Worker:
    """Takes one run after the other until it is told to stop."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.db = open_database(home)
        self.me = Registration(self.db)
        self.stop = threading.Event()

    def work(self, once: bool = False) -> None:
        """Work until `stop` is set; with `once` until the queue is empty."""
        try:
            while not self.stop.is_set():
                try:
                    if not self._take_one():
                        if once:
                            return
                        self.stop.wait(POLL_SECONDS)
                except sqlite3.OperationalError:
                    logger.exception("the database cannot be written now; trying again")
                    self.stop.wait(5)
        finally:
            remove_worker(self.db, self.me.id)

    def _take_one(self) -> bool:
        if held_run(self.db, self.me.id):
            expire_lease(self.db, self.me.id)  # an error kept this worker from giving it back
        self.me.release_dead_workers()
        self.me.beat(None)
        run = claim_run(self.db, self.me.id, LEASE_SECONDS)
        if run is None:
            return False
        self.me.beat(run.id, force=True)
        logger.info("run %s (%s), attempt %d", run.id, run.name, run.attempt)
        try:
            self._carry_out(run)
        except LostRunError:
            logger.warning("run %s is no longer this worker's", run.id)
        self.me.beat(None, force=True)
        return True

    def _carry_out(self, run: Run) -> None:
        out_of_memory_before, began = out_of_memory_kills(), {run.id: run.progress.get("fraction", 0)}
        process = self._start(run)
        try:
            run, killed_for_stop = self._watch(run, process)
        finally:
            _end(process)
        # The process may have claimed a cell since that was last looked at.
        run = held_run(self.db, self.me.id) or run
        if self.stop.is_set():
            if not get_run(self.db, run.id).ended:
                release_run(self.db, run.id, run.attempt)
            return
        if process.returncode == training_process.EXIT_LOST:
            return
        after = get_run(self.db, run.id)
        if after.ended:
            logger.info("run %s: %s", run.id, after.state.value)
        elif killed_for_stop or after.state is State.STOPPING:
            finish_run(self.db, run.id, run.attempt, State.CANCELLED)
        else:
            advanced = after.progress.get("fraction", 0) - began.get(run.id, 0) > PROGRESS_WORTH_A_RETRY
            self._died(run, process.returncode, advanced, out_of_memory_kills() > out_of_memory_before)

    def _start(self, run: Run) -> subprocess.Popen[bytes]:
        folder = run_folder(self.home, run.id)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", training_process.__name__, "--home", str(self.home.resolve()), "--run", run.id]
        command += ["--attempt", str(run.attempt), "--worker", self.me.id, "--parent", str(os.getpid())]
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=CODE_ROOT)

    def _watch(self, run: Run, process: subprocess.Popen[bytes]) -> tuple[Run, bool]:
        """Wait for the process, keeping the lease of what it works on: `run`, then the cells that it claims itself.

        Returns the last of these, and whether the process was killed because it would not stop.
        """
        asked_at: float | None = None
        renewed = time.monotonic()
        while process.poll() is None and not self.stop.is_set():
            self.me.beat(run.id)
            if time.monotonic() - renewed > 2:
                renewed = time.monotonic()
                try:
                    state = renew_lease(self.db, run.id, run.attempt, LEASE_SECONDS)
                except LostRunError:
                    # Ended by the training process a moment ago, or truly lost: both end the watch, unless the
                    # process goes on with another cell.
                    following = self._following(process)
                    if following is None:
                        return run, False
                    run, asked_at = following, None
                    continue
                if state is State.STOPPING:
                    asked_at = asked_at or time.monotonic()
                    if time.monotonic() - asked_at > STOP_PATIENCE_SECONDS:
                        return run, True
            _wait(process, POLL_SECONDS)
        return run, False

    def _following(self, process: subprocess.Popen[bytes]) -> Run | None:
        """What the process has claimed in this worker's name; None once it has ended, or does nothing for long."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if run := held_run(self.db, self.me.id):
                return run
            if process.poll() is not None:
                return None
            _wait(process, 0.1)
        return None

    def _died(self, run: Run, code: int, advanced: bool, out_of_memory: bool) -> None:
        """The training process ended without an end of the run: go on from the last checkpoint, or give up."""
        stalls = run.stalls + 1 if out_of_memory or not advanced else 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if code > 0 or stalls >= (MAX_OUT_OF_MEMORY if out_of_memory else MAX_STALLS):
            finish_run(self.db, run.id, run.attempt, State.FAILED, error=self._last_words(run, how, out_of_memory))
            return
        record_stall(self.db, run.id, run.attempt, stalls)
        words = f"The training process ended unexpectedly ({how}); it goes on from the last checkpoint"
        add_event(self.db, run.id, "interrupted", words)
        logger.warning("run %s: %s", run.id, words)
        release_run(self.db, run.id, run.attempt)

    def _last_words(self, run: Run, how: str, out_of_memory: bool) -> str:
        if out_of_memory:
            return (
                "The machine ran out of memory and ended the training: choose a smaller batch size, LoRA instead of "
                "full fine-tuning, or a smaller model, then retry."
            )
        lines = [line for line in log_lines(run_folder(self.home, run.id) / "log.txt") if line.strip()]
        last = f", last line of its log: {lines[-1][:200]}" if lines else ""
        return f"The training process ended {MAX_STALLS} times or at its start ({how}){last}."


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A checkpoint is whole or absent whenever the process ends, so there is nothing to wait for."""
    if process.poll() is None:
        process.kill()
        process.wait()


def out_of_memory_kills() -> int:
    """How often the kernel has ended a process here because memory ran out; 0 where it does not tell."""
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        try:
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        except (OSError, ValueError):
            continue
    return 0


def run_worker(home: Path, parent: int | None = None, once: bool = False) -> None:
    """Work until SIGTERM or SIGINT, or until the process `parent` is gone; with `once` until the queue is empty."""
    set_up_logs()
    worker = Worker(home)
    logger.info("worker %s takes runs of %s", worker.me.id, home)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop.set())
    if parent is not None:
        end_with_parent(parent, on_end=worker.stop.set)
    worker.work(once)
