"""One model server: started, asked for its health, started again with growing pauses when it ends, stopped for good.

A thread of its own takes each server through its states; they are written to its row, so that every page sees them.
Its output goes to HOME/servers/ID.log.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine import CODE_ROOT
from engine.hardware import is_exclusive
from engine.models.checksums import damage
from engine.serving import PREPARE
from engine.serving.client import ServerClient, ServingError
from engine.serving.listening import free_port
from engine.serving.processes import keeper
from engine.serving.processes.plans import Plan
from engine.serving.processes.room import turn_to_start
from engine.serving.processes.sessions import end_left_session
from storage.database import now, open_database
from storage.devices import release_device, run_on_device, take_for_server
from storage.folders import log_lines
from storage.processes import ProcessName
from storage.servers import ServerState, add_server, remove_server, update_server

logger = logging.getLogger("engine.serving")

START_POLL_SECONDS = 0.05
WATCH_POLL_SECONDS = 0.25
DEVICE_SECONDS = 1.0
HEALTH_SECONDS = 5.0
# Without one answer for this long a server counts as hung. It may be computing for a thousand questions.
SILENCE_SECONDS = 180.0
START_SECONDS = 900.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
# A server that answered for this long is started again at once; one that did not, after growing pauses.
STEADY_SECONDS = 2.0
KEPT_LOGS = 20
# What the keeper gives the server when it ends it, and what the keeper is given itself.
KEEPER_SECONDS = "10"
END_SECONDS = 20.0


class ModelProcess:
    """Watches over the server of one plan, from `start` to `stop`."""

    def __init__(self, home: Path, plan: Plan, reason: str, port: int | None = None, tries: int = 3) -> None:
        """`tries`: ends before the first answer, after which it is given up."""
        self.home, self.plan, self.reason = home, plan, reason
        self.tries = tries
        self.state: ServerState = "starting"
        self.message = ""
        self.port = self._asked_port = port
        self.adapters: OrderedDict[str, int] = OrderedDict()  # name → when its file was written; the oldest use first
        self.lock = threading.Lock()  # of the adapters
        self.begun = self.used = time.monotonic()
        self.ready_since = float("inf")
        self.devices = plan.devices()
        self.id = ""
        self.keeper: ProcessName | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._restarts = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"model server {plan.serves}", daemon=True)

    @property
    def url(self) -> str:
        """Its address, without `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def part(self) -> float:
        """Of a GPU's memory, on each of its devices."""
        return self.plan.part

    @property
    def log(self) -> Path:
        """Everything that it printed."""
        return self.home / "servers" / f"{self.id}.log"

    def start(self) -> None:
        """Register it and begin to bring it up; returns at once."""
        plan = self.plan
        with closing(open_database(self.home)) as db:
            self.id = add_server(
                db, backend=plan.backend, serves=plan.serves, reason=self.reason, owner=ProcessName.of()
            )
        self._thread.start()

    def stop(self) -> None:
        """End it with all its processes and forget it; returns when that is done."""
        self._end.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        db = open_database(self.home)
        try:
            self._live(db)
        except Exception as error:
            logger.exception("the watch over server %s ended", self.id)
            self._say(db, "failed", f"The model server could not be watched over ({error}): see the lab's log.")
        finally:
            self._finish(db)
            if self.state != "failed":
                remove_server(db, self.id)
            db.close()

    def _live(self, db: Database) -> None:
        failed, pause = 0, FIRST_PAUSE_SECONDS
        while not self._end.is_set():
            problem, steady = self._bring_up(db), False
            if problem is None:
                ready = time.monotonic()
                failed, problem = 0, self._watch(db)
                steady = time.monotonic() - ready > STEADY_SECONDS
            else:
                failed += 1
            if self.state == "ready":
                self.state = "restarting"  # nobody shall be sent to what is being ended
            self._finish(db)
            if self._end.is_set() or problem == "":
                continue
            if failed >= self.tries:
                self._say(db, "failed", f"{problem}; its log: {self.log}")
                return
            wait = 0.0 if steady else pause
            pause = FIRST_PAUSE_SECONDS if steady else min(LONGEST_PAUSE_SECONDS, pause * 2)
            words = f"{problem}; starting it again{f' in {wait:.0f} s' if wait > 1 else ''}"
            self._restarts += 1
            self._say(db, "restarting", words, restarts=self._restarts)
            self._end.wait(wait)

    def _bring_up(self, db: Database) -> str | None:
        """From nothing to the first answer. None on success, '' when it is wanted no more, else what went wrong."""
        while not self._end.is_set():
            # Who waits for a device leaves the turn to those that stand elsewhere.
            with turn_to_start(self.plan.part > 0, self._end):
                if self._takes_device(db):
                    return self._start(db)
            self._end.wait(DEVICE_SECONDS)
        return ""

    def _start(self, db: Database) -> str | None:
        self._say(db, "starting" if self.state in ("starting", "waiting") else "restarting", "")
        began = time.monotonic()
        self._clear_logs()
        if problem := self._prepare():
            return problem
        try:
            process = self._spawn(db)
        except (OSError, ValueError) as error:
            return f"The model server cannot be started: {error}"
        looked = began
        with ServerClient(self.url) as client:
            while time.monotonic() - began < START_SECONDS and not self._end.is_set():
                if process.poll() is not None:
                    return f"The model server ended while it started ({self._last_words(process.returncode)})"
                with suppress(ServingError):
                    client.health()
                    self.ready_since = time.monotonic()
                    took = round(self.ready_since - began, 2)
                    self._say(db, "ready", "", ready_at=now(), start_seconds=took)
                    return None
                if time.monotonic() - looked > DEVICE_SECONDS:
                    looked = time.monotonic()
                    if self._run_wants_device(db):
                        return ""
                self._end.wait(START_POLL_SECONDS)
        return "" if self._end.is_set() else f"The model server did not answer within {START_SECONDS:.0f} s"

    def _watch(self, db: Database) -> str:
        """Until it ends: returns what happened, '' when it was wanted to."""
        answered = asked = looked = time.monotonic()
        assert self._process is not None
        with ServerClient(self.url) as client:
            while not self._end.wait(WATCH_POLL_SECONDS):
                if (code := self._process.poll()) is not None:
                    return f"The model server ended unexpectedly ({self._last_words(code)})"
                clock = time.monotonic()
                if clock - asked > HEALTH_SECONDS:
                    asked = clock
                    with suppress(ServingError):
                        client.health()
                        answered = time.monotonic()
                    if time.monotonic() - answered > SILENCE_SECONDS:
                        return f"The model server gave no sign of life for {SILENCE_SECONDS:.0f} s"
                if clock - looked > DEVICE_SECONDS:
                    looked = clock
                    if self._run_wants_device(db):
                        return ""
        return ""

    def _run_wants_device(self, db: Database) -> bool:
        return self._exclusive() and any(run_on_device(db, device) for device in self.devices)

    def _exclusive(self) -> bool:
        return any(is_exclusive(device) for device in self.devices)

    def _takes_device(self, db: Database) -> bool:
        """Take the device, unless a run has it or the server is wanted no more."""
        if self._end.is_set() or not self._exclusive():
            return not self._end.is_set()
        run = take_for_server(db, self.devices, self.id, ProcessName.of())
        if run is not None and self.state != "waiting":
            self._say(db, "waiting", f"Training has the device ({', '.join(self.devices)}): run {run}")
        return run is None

    def _prepare(self) -> str | None:
        """Make the prepared base, in a process of its own. None on success, else what went wrong."""
        there = self.plan.folder
        if self.plan.run is None or (there and (there / "config.json").is_file() and not damage(there)):
            return None
        command = [sys.executable, "-m", PREPARE, "--home", str(self.home), "--run", self.plan.run]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            cwd=CODE_ROOT,
        ) as process:  # fmt: skip
            errors = None
            while errors is None:
                with suppress(subprocess.TimeoutExpired):
                    _, errors = process.communicate(timeout=WATCH_POLL_SECONDS)
                if self._end.is_set():
                    process.kill()  # a large base takes minutes, for which nobody waits any more
        if process.returncode == 0:
            return None
        words = errors.strip().splitlines()
        return f"The base cannot be prepared: {words[-1] if words else 'no reason'}"

    def _spawn(self, db: Database) -> subprocess.Popen[bytes]:
        self.port = free_port(self._asked_port or self.port)
        if self._asked_port and self.port != self._asked_port:
            raise OSError(f"port {self._asked_port} is in use: choose another one")
        command = [sys.executable, "-m", keeper.__name__, KEEPER_SECONDS, *self.plan.command(self.home, self.port)]
        with self.lock:
            self.adapters.clear()
        with self.log.open("ab") as log:
            log.write(f"\n{now()} {' '.join(command)}\n".encode())
            self._log_start = log.tell()
            log.flush()
            # Its standard input ends with this process, which the keeper sees.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=CODE_ROOT,
                env=self.plan.environment(), start_new_session=True,
            )  # fmt: skip
        self.keeper = ProcessName.of(self._process.pid)
        update_server(db, self.id, keeper=self.keeper, port=self.port)
        if self._exclusive():
            # The hold shall last as long as the server itself does, also when this lab is killed.
            take_for_server(db, self.devices, self.id, self.keeper)
        return self._process

    def _clear_logs(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            for old in sorted(self.log.parent.glob("*.log"), key=lambda p: p.stat().st_mtime)[:-KEPT_LOGS]:
                old.unlink()

    def _finish(self, db: Database) -> None:
        """End whatever is left of its processes, and give the device back."""
        if self._process is not None:
            with self._process:  # which waits for it
                if self.keeper is not None:
                    end_left_session(self.keeper, END_SECONDS)
        self.keeper = self._process = None
        for device in self.devices:
            release_device(db, device, self.id)

    def _say(self, db: Database, state: ServerState, message: str, **columns: Any) -> None:
        self.state, self.message = state, message
        if message:
            logger.warning("model server %s: %s", self.id, message)
        update_server(db, self.id, state=state, message=message, **columns)

    def _last_words(self, code: int) -> str:
        if code < 0 or code > 128:  # the keeper itself, or what it kept
            return f"killed by signal {-code if code < 0 else code - 128}"
        line = last_error(log_lines(self.log, self._log_start))
        return f"exit status {code}; {line}" if line else f"exit status {code}"


def last_error(lines: list[str]) -> str:
    """The line of a log that best says what went wrong, shortened; '' when there is none."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if "Error: " in line or "error: " in line]
    return next(reversed(errors or said), "").split(") ERROR ")[-1][:300]
