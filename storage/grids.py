"""Grids in the queue: a study or an attack is a plan and the runs that it became, and both wait, stop and grow alike.

A run of a grid says what it belongs to (`runs.study` or `runs.attack`), where it stands there (`runs.cell`), in which
order (`runs.cell_place`), and which run it waits for (`runs.needs`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from storage.acting import actor_id
from storage.audit import addition, change
from storage.database import now, write
from storage.runs import ENDED, State, add_event, request_stop, retry_run


@dataclass(frozen=True, slots=True)
class Kind:
    """What a grid is: its name, which is the column of `runs` too; the table of grids, and its column of plans."""

    name: str
    table: str
    plan: str


STUDY = Kind("study", "studies", "plan")
ATTACK = Kind("attack", "attacks", "experiment")


@dataclass(frozen=True, slots=True)
class GridRun:
    """A run that is to be queued: its experiment and seed, where it stands, and the run that it waits for, if any."""

    name: str
    experiment: dict[str, Any]
    seed: int
    cell: dict[str, Any]
    needs: str | None
    id: str = field(default_factory=lambda: secrets.token_hex(4))


def add_grid(
    db: Database, kind: Kind, *, name: str, plan: dict[str, Any], runs: Iterable[GridRun], **more: str | None
) -> str:
    """Queue a grid and its runs, in their order; `more` are further columns of it. Returns its id.

    Raises NotAllowed as `add_run`.
    """
    grid, owner, planned = secrets.token_hex(4), actor_id(), list(enumerate(runs))
    with addition(db, "started", kind.name, grid, name, runs=len(planned)):
        row = {"id": grid, "name": name, kind.plan: _json(plan), "created_at": now(), "owner": owner}
        db.table(kind.table).insert(row | more)
        _queue(db, kind, grid, owner, planned)
    return grid


def replan_grid(
    db: Database,
    kind: Kind,
    grid: str,
    plan: dict[str, Any],
    runs: Iterable[GridRun | tuple[str, dict[str, Any]]],
) -> int:
    """Give a grid a wider plan. Its runs in their order: of those that are there the id and what changes in
    their cell, and new ones, which are queued. Returns how many are new.

    Raises KeyError, and NotAllowed for somebody else's, and as `add_run`.
    """
    new = []
    with changing(db, kind, "made wider", grid, queues=True):
        (owner,) = db.execute(f"select owner from {kind.table} where id = ?", [grid]).fetchone()
        db.table(kind.table).update(grid, {kind.plan: _json(plan)})
        for place, run in enumerate(runs):
            if isinstance(run, GridRun):
                new.append((place, run))
            else:
                known, changed = run
                db.table("runs").update(known, {"cell_place": place})
                for name, value in changed.items():
                    sql = "update runs set cell = json_set(cell, ?, json(?)) where id = ?"
                    db.execute(sql, [f"$.{name}", json.dumps(value), known])
        _queue(db, kind, grid, owner, new)
    return len(new)


class _Undone(Exception):
    """Ends a transaction that was only to tell what it would do."""


def would_be_new(db: Database, widen: Callable[[], int]) -> int:
    """What `widen` would return, which queues what is new and here nothing. Raises what it raises."""
    new = 0
    with suppress(_Undone), write(db):
        new = widen()
        raise _Undone
    return new


def _queue(db: Database, kind: Kind, grid: str, owner: str | None, runs: Iterable[tuple[int, GridRun]]) -> None:
    for place, run in runs:
        db.table("runs").insert(
            {"id": run.id, "name": run.name, "experiment": _json(run.experiment), "model": run.experiment["model"],
             "seed": run.seed, "created_at": now(), kind.name: grid, "cell": json.dumps(run.cell), "cell_place": place,
             "needs": run.needs, "owner": owner}
        )  # fmt: skip
        add_event(db, run.id, "queued", "Queued")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)


def read_runs(db: Database, kind: Kind, grid: str, cell: str = "cell") -> Iterator[dict[str, Any]]:
    """The runs of a grid in the order of its plan, as rows: `run, state, cell, needs, progress, headline, error,
    started_at, finished_at`. cell: an expression in SQL, where a part of it is wanted alone."""
    return read_rows(db, f"{kind.name} = ? order by cell_place", grid, cell)


def read_rows(db: Database, condition: str, value: str, cell: str = "cell") -> Iterator[dict[str, Any]]:
    """The same of any runs of grids, by a condition in SQL."""
    columns = "id as run, state, needs, progress, headline, error, started_at, finished_at"
    for row in db.query(f"select {columns}, {cell} as cell from runs where {condition}", [value]):
        parsed = {name: json.loads(row[name]) for name in ("cell", "progress", "headline")}
        yield {**row, "state": State(row["state"]), **parsed}


def waiting_runs(db: Database, kind: Kind, grid: str) -> list[str]:
    """The runs that have not ended, in the order of its plan; first those of others that it waits for."""
    ended = ", ".join(f"'{state.value}'" for state in ENDED)
    sql = (
        f"select id from runs where state not in ({ended})"
        f" and ({kind.name} is :grid or id in (select needs from runs where {kind.name} = :grid))"
        f" order by {kind.name} is :grid, cell_place, rowid"
    )
    return [row["id"] for row in db.query(sql, {"grid": grid})]


def grid_counts(db: Database, kind: Kind, grid: str) -> dict[str, int]:
    """How many of its runs are in which state."""
    sql = f"select state, count(*) as n from runs where {kind.name} = ? group by state"
    return {row["state"]: row["n"] for row in db.query(sql, [grid])}


def changing(db: Database, kind: Kind, act: str, grid: str, queues: bool = False) -> AbstractContextManager[None]:
    """A change of a grid, see `storage.audit.change`. Raises KeyError, and NotAllowed for somebody else's."""
    found = db.execute(f"select name, owner from {kind.table} where id = ?", [grid]).fetchone()
    if found is None:
        raise KeyError(grid)
    name, owner = found
    return change(db, act, kind.name, grid, name, owner, queues)


def stop_grid(db: Database, kind: Kind, grid: str) -> None:
    """Cancel what is queued, ask what runs to stop. Raises KeyError, and NotAllowed for somebody else's."""
    with changing(db, kind, "stopped", grid):
        for run in _ids(db, kind, grid):
            request_stop(db, run)


def retry_grid(db: Database, kind: Kind, grid: str, before: Iterable[str] = ()) -> None:
    """Queue those runs again that failed or were cancelled, and `before` them others, which may be gone.

    Raises KeyError, and NotAllowed for somebody else's, and as `add_run`.
    """
    with changing(db, kind, "took up again", grid, queues=True):
        for run in (*before, *_ids(db, kind, grid, State.FAILED, State.CANCELLED)):
            with suppress(KeyError):
                retry_run(db, run)


def _ids(db: Database, kind: Kind, grid: str, *states: State) -> list[str]:
    """The runs of a grid, all or those in some states, in the order of its plan."""
    rows = db.query(f"select id, state from runs where {kind.name} = ? order by cell_place", [grid])
    return [row["id"] for row in rows if not states or row["state"] in states]
