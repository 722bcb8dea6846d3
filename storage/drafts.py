"""Drafts: designs that a person has not started yet, kept as they were left, valid or not, and what can be undone.

A row for each browser (and account, where people have some), with rows for its tabs and for each step that can be
undone beside it. Every change is one transaction on the stored draft, so that two tabs, a reload or a restart of the
server lose nothing. What is newer is told by a number that every change counts up, never by a clock.
"""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from storage.acting import actor_id
from storage.database import now, storable, write
from storage.merging import merge
from storage.runs import Run, add_run, get_run

VERSION = 1
MAX_UNDO = 10
MAX_UNDO_CHARACTERS = 20_000_000
MAX_TABS = 30
# A second press of the button, or a click that arrives twice, within this time is the same start.
SAME_START_SECONDS = 10
Draft = dict[str, Any]


def new_draft_id() -> str:
    """An id that nobody guesses: whoever knows it can read the draft."""
    return secrets.token_urlsafe(16)


def _own(draft_id: str) -> str:
    """Where the draft of whoever acts is kept: two people who use one browser have each their own."""
    account = actor_id()
    return f"{account}.{draft_id}" if account else draft_id


def valid_id(draft_id: Any) -> bool:
    """Whether a browser's stored id may be used as one."""
    return (
        isinstance(draft_id, str) and 16 <= len(draft_id) <= 64 and draft_id.replace("-", "").replace("_", "").isalnum()
    )


def save_draft(db: Database, draft_id: str, body: dict[str, Any]) -> None:
    """Store the body of that id, in place of the older one; with a question mark for half of a surrogate pair."""
    row = {"id": draft_id, "body": storable(json.dumps(body, ensure_ascii=False)), "updated_at": now()}
    with write(db):
        db.table("drafts").insert(row, replace=True)


def load_draft(db: Database, draft_id: str) -> dict[str, Any] | None:
    """The body of that id, or None."""
    for row in db.query("select body from drafts where id = ?", [draft_id]):
        return json.loads(row["body"])
    return None


@dataclass
class Change:
    """One transaction on a draft: `draft` and `tab` (what the lab remembers of the tab that asks) may be changed in
    place. `revision`: the draft's number, the new one once the block has ended. `alone`: the first number since when
    only the tab `by` changed it."""

    draft: Draft
    revision: int
    by: str
    alone: int
    tab: dict[str, Any] = field(default_factory=dict)


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
        return self._read(_own(draft_id), "").draft

    def _read(self, draft_id: str, tab: str) -> Change:
        """The draft, to be changed by this tab."""
        stored = load_draft(self._db, draft_id) or {}
        draft = stored["draft"] if stored.get("version") == VERSION else self._new()
        revision = stored.get("revision", 0)
        return Change(draft, revision, tab, stored.get("alone", 0) if stored.get("by") == tab else revision + 1)

    def latest(self, draft_id: str) -> tuple[int, str]:
        """The number of the draft's last change and the tab that made it; cheap, for tabs that look often."""
        draft_id = _own(draft_id)
        told = "json_extract(body, '$.revision') as revision, json_extract(body, '$.by') as by"
        for row in self._db.query(f"select {told} from drafts where id = ?", [draft_id]):
            return row["revision"] or 0, row["by"] or ""
        return 0, ""

    @contextmanager
    def change(self, draft_id: str, undo: str = "", tab: str = "") -> Iterator[Change]:
        """The stored draft, to be changed in place; stored again when the block ends without an error.

        `undo`: what the change does, in words, if it can be undone. `tab`: which tab asks.
        """
        draft_id = _own(draft_id)
        with write(self._db):
            change = self._read(draft_id, tab)
            memory = load_draft(self._db, f"{draft_id}/tab/{tab}") if tab else None
            before, before_memory = copy.deepcopy(change.draft), copy.deepcopy(memory)
            change.tab = memory if memory is not None else {}
            yield change
            if change.draft != before:
                change.revision += 1
                self._save(draft_id, change)
                if undo:
                    self._remember(draft_id, undo, change, before)
            if tab and change.tab != before_memory:
                save_draft(self._db, f"{draft_id}/tab/{tab}", change.tab)
                if memory is None:
                    self._forget_tabs(draft_id)

    def _save(self, draft_id: str, change: Change) -> None:
        told = {"version": VERSION, "revision": change.revision, "by": change.by, "alone": change.alone}
        body = told | {"draft": change.draft}
        save_draft(self._db, draft_id, body)

    def _forget_tabs(self, draft_id: str) -> None:
        """Keep what is remembered of the tabs that were written last."""
        first, beyond = f"{draft_id}/tab/", f"{draft_id}/tab0"  # 0 follows the slash
        lasts = "select id from drafts where id >= ? and id < ? order by rowid desc limit ?"
        sql = f"id >= ? and id < ? and id not in ({lasts})"
        self._db.table("drafts").delete_where(sql, [first, beyond, first, beyond, MAX_TABS])

    def _remember(self, draft_id: str, label: str, change: Change, before: Draft) -> None:
        body = {"before": before, "after": change.draft}
        save_draft(self._db, f"{draft_id}/undo/{change.revision}", body)
        size = len(json.dumps(body))
        steps = [*self._steps(draft_id), {"label": label, "tab": change.by, "at": change.revision, "size": size}]
        while len(steps) > 1 and (len(steps) > MAX_UNDO or sum(s["size"] for s in steps) > MAX_UNDO_CHARACTERS):
            self._db.table("drafts").delete(f"{draft_id}/undo/{steps.pop(0)['at']}")
        save_draft(self._db, f"{draft_id}/undo", {"steps": steps})

    def _steps(self, draft_id: str) -> list[dict[str, Any]]:
        """The steps that can be undone, the first one first, without the drafts they led from and to."""
        stored = load_draft(self._db, f"{draft_id}/undo") or {"steps": []}
        return [step for step in stored["steps"] if "at" in step]

    def _next_step(self, draft_id: str, tab: str) -> dict[str, Any] | None:
        """What the tab undoes next: its own last step, else the last one of all."""
        steps = self._steps(draft_id)
        return next((s for s in reversed(steps) if s["tab"] == tab), steps[-1] if steps else None)

    def undo_label(self, draft_id: str, tab: str = "") -> str | None:
        """What the step did, in words, that `undo` would take back; None when there is none."""
        step = self._next_step(_own(draft_id), tab)
        return step["label"] if step else None

    def undo(self, draft_id: str, tab: str = "") -> bool:
        """Take the tab's last step back, or the last one of all where it made none; False when there is none.

        What was typed or changed elsewhere since then stays; what the step added goes, unless another tab was at it.
        """
        draft_id = _own(draft_id)
        with write(self._db):
            step = self._next_step(draft_id, tab)
            if step is None:
                return False
            key = f"{draft_id}/undo/{step['at']}"
            change = self._read(draft_id, tab)
            if body := load_draft(self._db, key):
                change.draft = merge(body["after"], body["before"], change.draft, keep=change.alone > step["at"])
            change.revision += 1
            self._save(draft_id, change)
            self._db.table("drafts").delete_where("id = ?", [key])
            save_draft(self._db, f"{draft_id}/undo", {"steps": [s for s in self._steps(draft_id) if s != step]})
        return True

    def start(self, draft_id: str, experiment: dict[str, Any], cloned_from: str | None) -> Run:
        """Queue a run of the resolved experiment (as plain data); a second call at once returns the same run."""
        draft_id = _own(draft_id)
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
