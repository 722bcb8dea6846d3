"""A run that a machine of a cluster carries out, as the lab that owns it sees it: what goes there, what comes back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.cluster.needs import Devices, units_of
from engine.cluster.parts import PART_BYTES, Arrivals, Part, RefusedFile, is_path, parts_of
from engine.cluster.versions import difference
from engine.execution.aside import usable_answers
from engine.experiment import Experiment
from engine.models.folders import linked_copy
from storage.answers import ANSWERS_NAME, open_answers
from storage.carrying import rows_to_carry, store_letter
from storage.copies import copy_database, flaw_of
from storage.folders import checkpoint_folder, run_folder
from storage.runs import LEASE_SECONDS, Run, State, add_event, finish_run, renew_lease, set_progress
from storage.trouble import is_damage

WAITING = "Waiting for {} of the cluster"
SENDING = "Sending the run to {}"


class OtherVersion(Exception):
    """The machine has another version of something than this one; the message is a sentence."""


class CarriedRun:
    """One run. `steps` is driven by who has the connection: it yields what Ray was asked, and gets the answer.

    host: the machine, once the run has its place there. can_ask_again: whether None may stand for an answer that never
    came. ended: the state that was stored for the run at last.
    """

    def __init__(self, db: Database, home: Path, run: Run, actor: Any, devices: Devices) -> None:
        self.db, self.home, self.run, self.actor, self.devices = db, home, run, actor, devices
        self.experiment = Experiment.from_record(run.experiment)
        self.folder = run_folder(home, run.id)
        self.host, self.node_id = "", ""
        self.stopping = self.can_ask_again = False
        self.ended: State | None = None
        self.began_at = run.progress.get("fraction", 0.0)
        self._given: set[str] = set()
        self._arrivals = Arrivals(home, self.folder / ".arriving", self._may, self._put)

    def steps(self) -> Generator[Any, Any, None]:
        """From the first word to the stored end. Raises LostRunError, OtherVersion, RefusedFile, ValueError, OSError
        and sqlite3.Error; what Ray raises is thrown in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / ANSWERS_NAME).is_file():
            usable_answers(self.db, self.folder, self.run.id).close()
        self._say(WAITING.format(self.devices.words))
        hello = yield self.actor.hello.remote()
        self.node_id = str(hello["node"])
        if problem := difference(str(hello["host"]), hello["versions"]):
            raise OtherVersion(problem)
        self.host = str(hello["host"])[:200]
        self._say(SENDING.format(self.host))
        add_event(self.db, self.run.id, "placed", f"Carried out on the machine {self.host}")
        for parts in _batches(self._parts()):
            yield self.actor.receive.remote(parts)
        rows, home = rows_to_carry(self.db, self.run), str(self.home.resolve())
        yield self.actor.begin.remote(rows, self.run.id, self.devices.environment, home)
        number, over, row = 0, False, dict[str, Any]()
        self.can_ask_again = True
        while not over:
            news = yield self.actor.news.remote(number, self.stopping)
            if news is None:
                continue
            number, over = number + 1, bool(news["over"])
            row = self._store(news) or row
        self.can_ask_again = False
        self._end(row)
        yield self.actor.close.remote()

    def _say(self, words: str) -> None:
        fraction = self.run.progress.get("fraction", 0.0)
        state = set_progress(
            self.db, self.run.id, self.run.attempt, {"stage": "loading", "message": words, "fraction": fraction}
        )
        self.stopping = state is State.STOPPING

    def _parts(self) -> Iterator[Part]:
        for unit in units_of(self.db, self.home, self.run, self.experiment):
            self._given.add(unit)
            if Path(unit).name == ANSWERS_NAME:
                yield from self._answers_to_send(unit)
            else:
                yield from parts_of(self.home, unit)

    def _answers_to_send(self, unit: str) -> Iterator[Part]:
        """Only SQLite may open them: the page may have them open in another process, and be writing."""
        copy = self.folder / ".answers-to-send"
        copy.unlink(missing_ok=True)
        try:
            copy_database(self.home / unit, copy)
            for part in parts_of(self.folder, copy.name):
                yield part | {"unit": unit}
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            # They are another run's: what this one would have taken over it asks itself.
        finally:
            copy.unlink(missing_ok=True)

    def _store(self, news: dict[str, Any]) -> dict[str, Any]:
        """Store what is new; returns the run's row there, {} when nothing is said of it."""
        # An answer may be late, and the folder that of another attempt.
        renew_lease(self.db, self.run.id, self.run.attempt, LEASE_SECONDS)
        for part in news["parts"]:
            if "same_as" in part:
                self._link(part["unit"], part["same_as"])
            else:
                self._arrivals.take(part)
        if log := bytes(news["log"]):
            with (self.folder / "log.txt").open("ab") as file:
                file.write(log)
        letter = news.get("letter")
        if not letter:
            return {}
        self.stopping = store_letter(self.db, self.run, letter) is State.STOPPING
        return dict(letter["row"])

    def _end(self, row: dict[str, Any]) -> None:
        state = State(row.get("state", ""))
        if state is State.DONE:
            finish_run(self.db, self.run.id, self.run.attempt, state, headline=dict(row["headline"]))
            shutil.rmtree(self.folder / "resume", ignore_errors=True)
        elif state is State.FAILED:
            error = str(row["error"] or "The run failed.")[:2000]
            finish_run(self.db, self.run.id, self.run.attempt, state, error=error)
        else:
            finish_run(self.db, self.run.id, self.run.attempt, State.CANCELLED)
        self.ended = state

    def _may(self, unit: str) -> bool:
        """Whether the machine may write there: files of this run, and what its attack hardened."""
        if "/." in unit:
            return False
        inside, _, rest = unit.partition(f"runs/{self.run.id}/")
        if not inside and rest:
            parent, _, name = rest.partition("/")
            if name:
                return parent in ("checkpoints", "resume") and "/" not in name
            return rest in ("base_text.json", "run.json", ANSWERS_NAME)
        inside, _, rest = unit.partition(f"attacks/{self.run.attack}/")
        return bool(self.run.attack and not inside and rest and "/" not in rest)

    def _put(self, unit: str, arrived: Path) -> None:
        if Path(unit).name == ANSWERS_NAME:
            take_answers(self.folder, arrived)
        else:
            os.replace(arrived, self.home / unit)  # noqa: PTH105 (as all files of a run's folder are replaced)

    def _link(self, unit: str, other: str) -> None:
        """A checkpoint that was taken over from another run, and is here already: it takes no room twice."""
        if not self._may(unit) or not is_path(unit) or other not in self._given:
            raise RefusedFile(f"‘{unit}’ has no place here")
        target, source = checkpoint_folder(self.folder, Path(unit).name), self.home / other
        if target.parent != (self.home / unit).parent or os.path.lexists(target):
            return
        linked_copy(source, target)

    def forget(self) -> None:
        """Drop what has not arrived as a whole."""
        self._arrivals.drop()


def _batches(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """Small parts together, large ones alone."""
    batch: list[Part] = []
    size = 0
    for part in parts:
        if batch and size + len(part["data"]) > PART_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += len(part["data"])
    if batch:
        yield batch


def take_answers(folder: Path, arrived: Path) -> None:
    """Put answers that arrived in the place of those that the run has, also while others read them.

    Raises RefusedFile for what is no sound database of answers as this version of the lab makes them.
    """
    if problem := flaw_of(arrived):
        raise RefusedFile(f"the answers that arrived are damaged ({problem})")
    with closing(open_answers(folder)) as here, closing(sqlite3.connect(arrived)) as there:
        if _schema(here.conn) != _schema(there):
            raise RefusedFile("the answers that arrived are of another version of the lab")
        there.backup(here.conn)


def _schema(db: sqlite3.Connection) -> list[Any]:
    return db.execute("select type, name, tbl_name, sql from sqlite_master order by type, name").fetchall()
