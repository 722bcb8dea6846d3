"""Drafts: designs that a person has not started yet, kept as they were left, valid or not, and what can be undone.

A row for each browser. Every change is one transaction on the stored draft, so that two tabs, a reload or a restart
of the server lose nothing.
"""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlite_utils import Database

from storage.database import now, write
from storage.runs import Run, add_run, get_run

VERSION = 1
MAX_UNDO = 10
MAX_UNDO_CHARACTERS = 20_000_000
# A second press of the button, or a click that arrives twice, within this time is the same start.
SAME_START_SECONDS = 10
Draft = dict[str, Any]


def new_draft_id() -> str:
    """An id that nobody guesses: whoever knows it can read the draft."""
    return secrets.token_urlsafe(16)


def valid_id(draft_id: Any) -> bool:
    """Whether a browser's stored id may be used as one."""
    return (
        isinstance(draft_id, str) and 16 <= len(draft_id) <= 64 and draft_id.replace("-", "").replace("_", "").isalnum()
    )


def save_draft(db: Database, draft_id: str, body: dict[str, Any]) -> None:
    """Store the body of that id, in place of the older one."""
    row = {"id": draft_id, "body": json.dumps(body, ensure_ascii=False), "updated_at": now()}
    with write(db):
        db.table("drafts").insert(row, replace=True)


def load_draft(db: Database, draft_id: str) -> dict[str, Any] | None:
    """The body of that id, or None."""
    for row in db.query("select body from drafts where id = ?", [draft_id]):
        return json.loads(row["body"])
    return None


class DraftStore:
    """The drafts of one lab. `connection` gives the calling thread's database, `new` the draft to begin with."""

    def __init__(self, connection: Callable[[], Database], new: Callable[[], Draft]) -> None:
        self._connection = connection
        self._new = new

    @property
    def _db(self) -> Database:
        return self._connection()

    def read(self, draft_id: str) -> Draft:
        """The stored draft, or a new one where there is none or an older version of the page left it."""
        stored = load_draft(self._db, draft_id)
        return stored["draft"] if stored and stored.get("version") == VERSION else self._new()

    @contextmanager
    def change(self, draft_id: str, undo: str = "") -> Iterator[Draft]:
        """The stored draft, to be changed in place; stored again when the block ends without an error.

        `undo`: what the change does, in words, if it can be undone.
        """
        with write(self._db):
            draft = self.read(draft_id)
            before = copy.deepcopy(draft)
            yield draft
            if undo:
                self._remember(draft_id, undo, before)
            if draft != before:
                save_draft(self._db, draft_id, {"version": VERSION, "draft": draft})

    def _remember(self, draft_id: str, label: str, draft: Draft) -> None:
        steps = [*self._steps(draft_id), {"label": label, "draft": draft}][-MAX_UNDO:]
        while len(steps) > 1 and len(json.dumps(steps)) > MAX_UNDO_CHARACTERS:
            steps.pop(0)
        save_draft(self._db, f"{draft_id}/undo", {"steps": steps})

    def _steps(self, draft_id: str) -> list[dict[str, Any]]:
        stored = load_draft(self._db, f"{draft_id}/undo")
        return stored["steps"] if stored else []

    def undo_label(self, draft_id: str) -> str | None:
        """What the last step that can be undone did, in words, or None."""
        steps = self._steps(draft_id)
        return steps[-1]["label"] if steps else None

    def undo(self, draft_id: str) -> bool:
        """Go back to the draft before the last step that can be undone; False when there is none."""
        with write(self._db):
            steps = self._steps(draft_id)
            if not steps:
                return False
            last = steps.pop()
            save_draft(self._db, draft_id, {"version": VERSION, "draft": last["draft"]})
            save_draft(self._db, f"{draft_id}/undo", {"steps": steps})
        return True

    def start(self, draft_id: str, experiment: dict[str, Any], cloned_from: str | None) -> Run:
        """Queue a run of the resolved experiment (as plain data); a second call at once returns the same run."""
        with write(self._db):
            last = load_draft(self._db, f"{draft_id}/start")
            if last and abs(time.time() - last["at"]) < SAME_START_SECONDS:
                try:
                    run = get_run(self._db, last["run"])
                except KeyError:
                    run = None
                if run and run.experiment == experiment:
                    return run
            fields = {key: experiment[key] for key in ("name", "model", "seed")}
            run = add_run(self._db, experiment=experiment, cloned_from=cloned_from, **fields)
            save_draft(self._db, f"{draft_id}/start", {"run": run.id, "at": time.time()})
        return run
