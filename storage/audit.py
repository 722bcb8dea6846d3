"""The audit: who changed what and when.

Of runs, studies, attacks and accounts an entry is written in the transaction of its change; of sign-ins, passwords and
tokens right behind it. What nobody in particular does (the command line, workers, a lab without accounts) is not in it,
but for what concerns accounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlite_utils import Database

from storage.acting import Actor, acting_as, actor, check_may_change, check_may_run
from storage.database import now, write
from storage.quotas import check_room, check_runs, no_more_than_may

LONGEST = 300


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: when, by whom (the name as it was then), what was done (`cancelled`) to what (`run`, its id and
    name), and anything more."""

    id: int
    at: str
    name: str
    act: str
    kind: str
    what: str
    about: str


def note(db: Database, act: str, kind: str, what: str = "", about: str = "", by: Actor | None = None) -> None:
    """Note a change, in the transaction that makes it. by: who made it, where that is not whoever acts; without
    either nothing is noted."""
    who = by or actor()
    if who is not None:
        row = {"at": now(), "user": who.id, "name": who.name, "act": act, "kind": kind, "what": what}
        with write(db):
            db.table("audit").insert(row | {"about": " ".join(about.split())[:LONGEST]})


@contextmanager
def change(
    db: Database, act: str, kind: str, what: str, about: str, owner: str | None, queues: bool = False
) -> Iterator[None]:
    """One change of what is of an account, checked, carried out as a transaction and noted; all that follows from it
    within the block is the lab's own doing. queues: whether runs may wait again by it, for which there has to be as
    much left as for new ones. Raises NotAllowed."""
    check_may_change(f"this {kind}", owner)
    if queues:
        check_room(db)
    with write(db):
        with no_more_than_may(db), acting_as(None):
            yield
        note(db, act, kind, what, about)


@contextmanager
def addition(db: Database, act: str, kind: str, what: str, about: str, runs: int = 0) -> Iterator[None]:
    """The same for something new, with so many runs that will wait. Raises NotAllowed for somebody who may only look,
    or who has as much in the lab as they may."""
    check_may_run()
    if runs:
        check_room(db)
    with write(db):
        if runs:
            check_runs(db, runs)
        with acting_as(None):
            yield
        note(db, act, kind, what, about)


def list_entries(db: Database, limit: int = 50, offset: int = 0, search: str = "") -> list[Entry]:
    """Changes, newest first. search: in any of their texts."""
    condition, given = _matching(search)
    sql = f"select id, at, name, act, kind, what, about from audit where {condition} order by id desc limit ? offset ?"
    return [Entry(*row) for row in db.execute(sql, [*given, limit, offset])]


def count_entries(db: Database, search: str = "") -> int:
    """How many there are."""
    condition, given = _matching(search)
    return int(db.execute(f"select count(*) from audit where {condition}", given).fetchone()[0])


def _matching(search: str) -> tuple[str, list[str]]:
    text = search.strip().lower()
    if not text:
        return "1", []
    return "instr(lower(name || ' ' || act || ' ' || kind || ' ' || what || ' ' || about), ?)", [text]
