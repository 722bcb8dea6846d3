"""A lab for one run on a machine of a cluster: a temporary home, in which an ordinary worker carries the run out.

Models and what bases wrote are those of the machine's own lab (ROTE_LAB_HOME, else ~/.rote-lab): they are linked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.cluster.parts import Arrivals, Part
from engine.cluster.sending import LOG_BYTES, Sending
from engine.execution.worker import Worker
from engine.models.source import CARRIED_HOME
from storage.carrying import Rows, store_carried, take_letter
from storage.database import default_home, open_database
from storage.processes import ProcessName
from storage.runs import ENDED, State, request_stop

PREFIX, PROCESS = "rote-lab-run-", "process.json"
SHARED = ("models", "base_text")

logger = logging.getLogger("engine.cluster")


class PrivateLab:
    """One run, from the rows that it begins with to its end. Used by one thread; the worker has another."""

    def __init__(self) -> None:
        remove_abandoned()
        self.home = Path(tempfile.mkdtemp(prefix=PREFIX))
        process = json.dumps(asdict(ProcessName.of()))
        (self.home / PROCESS).write_text(process, encoding="utf-8")
        for name in SHARED:
            shared = default_home() / name
            shared.mkdir(parents=True, exist_ok=True)
            (self.home / name).symlink_to(shared.absolute(), target_is_directory=True)
        self._arrivals = Arrivals(self.home, self.home / "arriving", may=lambda unit: True)
        self._db = open_database(self.home)
        self._looked = -1
        self._said: dict[str, Any] = {}
        self._asked_to_stop = False

    def receive(self, part: Part) -> None:
        """Take a part of a file that the run needs. Raises RefusedFile and OSError."""
        if unit := self._arrivals.take(part):
            logger.info("%s is here", unit)

    def begin(self, rows: Rows, run: str, environment: dict[str, str], owners_home: str) -> None:
        """Have a worker carry the run out, in a thread; its training process gets this environment.

        owners_home: where the files that came have their places in the lab that owns the run.
        """
        os.environ.update(environment)
        os.environ[CARRIED_HOME] = json.dumps([owners_home, str(self.home)])
        store_carried(self._db, rows)
        self.run = run
        self._sending = Sending(self.home, run, next((r["attack"] for r in rows["runs"] if r["id"] == run), None))
        self._worker = Worker(self.home)
        # The training process ends with the thread that started it, and this one lasts as long as the work.
        self._thread = threading.Thread(target=self._worker.work, kwargs={"once": True}, name="worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for the run to be cancelled."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            request_stop(self._db, self.run)

    def news(self) -> dict[str, Any]:
        """What is new: a `letter` of the run's rows, `log` and `parts` of files; `over` when there will be no more."""
        working = self._thread.is_alive()
        version = self._db.execute("pragma data_version").fetchone()[0]
        news: dict[str, Any] = {"over": False}
        letter = take_letter(self._db, self.run) if version != self._looked or not working else None
        ended = letter is not None and State(letter["row"]["state"]) in ENDED
        news["log"] = self._sending.log()
        news["parts"] = self._sending.parts()
        if letter:
            self._looked = version
            if news["parts"]:
                # What is said of answers comes behind them: the next letter has it.
                letter |= {"results": [], "attack_results": []}
                self._looked = -1
            for name in ("results", "attack_results"):
                if letter[name] == self._said.get(name):
                    letter[name] = []
                elif letter[name]:
                    self._said[name] = letter[name]
            news["letter"] = letter
        news["over"] = not working and not news["parts"] and len(news["log"]) < LOG_BYTES
        if news["over"] and not ended:
            raise RuntimeError("the worker there ended before the run did: the machine's log has the reason")
        return news

    def close(self) -> None:
        """End the work and remove everything."""
        if hasattr(self, "_worker"):
            self._worker.stop.set()
            self._thread.join(10)
        self._db.close()
        shutil.rmtree(self.home, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of private labs whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            process = ProcessName(**json.loads((folder / PROCESS).read_text(encoding="utf-8")))
            if process.certain and not process.lives:
                shutil.rmtree(folder, ignore_errors=True)
