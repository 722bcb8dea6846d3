"""The order in which waiting runs are expected to start, and how it is changed.

Runs of several people take turns (`storage.runs.claim_run`): whoever has least at work comes first, then whoever was
served the longest ago; a person's own runs keep the order that they were started in, or put in. A run of a higher
priority goes before all of a lower one.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from storage.acting import check_is_admin
from storage.audit import change, note
from storage.database import write
from storage.runs import State, add_event, get_run, usual_seconds

PRIORITIES = {1: "first", 0: "as usual", -1: "when nothing else waits"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits. before: how many start before it; needs: a run that has not ended and that it waits for;
    seconds: how long runs like it took, of the same study or attack, else of the same name, else on the same model;
    None where none is done."""

    run: str
    owner: str | None
    priority: int
    before: int
    needs: str | None
    seconds: float | None


def expected_order(db: Database) -> list[Waiting]:
    """The waiting runs in the order in which they will start if nothing is added, and each ends before the next."""
    rows = db.execute(
        """select r.id, r.owner, r.priority, n.id, coalesce(r.attack, r.study), r.model, r.name from runs r
        left join runs n on n.id = r.needs and n.state in ('queued', 'running', 'stopping')
        where r.state = 'queued' order by r.priority desc, coalesce(r.place, r.rowid), r.rowid"""
    ).fetchall()
    last = db.execute("select owner, at from turns")
    # By when each was served last: before now by the time, in this forecast by how many came before.
    served: dict[str | None, tuple[int, str, int]] = {owner or None: (0, at, 0) for owner, at in last}
    usual, found = usual_seconds(db), list[Waiting]()
    for priority in dict.fromkeys(row[2] for row in rows):
        own: dict[str | None, deque[tuple[Any, ...]]] = {}
        for row in rows:
            if row[2] == priority:
                own.setdefault(row[1], deque()).append(row)
        turns = [(served.get(one, (0, "", 0)), number, one) for number, one in enumerate(own)]
        heapq.heapify(turns)
        while turns:
            _, number, owner = heapq.heappop(turns)
            run, _, _, needs, of, model, name = own[owner].popleft()
            like = usual.get(("of", of)) if of else usual.get(("like", model, name), usual.get(("on", model)))
            found.append(Waiting(run, owner, priority, len(found), needs, like))
            served[owner] = (1, "", len(found))
            if own[owner]:
                heapq.heappush(turns, (served[owner], number, owner))
    return found


def move_first(db: Database, run_id: str) -> None:
    """Put a waiting run before all others of its owner. Raises KeyError, ValueError when it does not wait,
    NotAllowed."""
    run = get_run(db, run_id)
    with change(db, "put first", "run", run.id, run.name, run.owner):
        if get_run(db, run_id).state is not State.QUEUED:
            raise ValueError("this run does not wait any more")
        sql = "select min(coalesce(place, rowid)) from runs where state = 'queued' and owner is ?"
        least = db.execute(sql, [run.owner]).fetchone()[0]
        db.table("runs").update(run_id, {"place": least - 1})


def set_priority(db: Database, run_id: str, priority: int) -> None:
    """Put a run before or behind those of everybody. Raises KeyError, ValueError, and NotAllowed but for admins."""
    check_is_admin()
    if priority not in PRIORITIES:
        raise ValueError("a priority is one of 1, 0 and -1")
    with write(db):
        run = get_run(db, run_id)
        if run.ended:
            raise ValueError("this run has ended")
        db.table("runs").update(run_id, {"priority": priority})
        add_event(db, run_id, "queued", f"Priority: {PRIORITIES[priority]}")
        note(db, f"priority {priority:+d}" if priority else "priority 0", "run", run.id, run.name)
