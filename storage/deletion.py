"""Deleting runs: never what something else hangs on."""

from __future__ import annotations

from collections.abc import Sequence

from sqlite_utils import Database

from storage.audit import change
from storage.runs import Run, State, get_run


def delete_run(db: Database, run_id: str) -> None:
    """Delete an ended or queued run with everything stored about it.

    Raises KeyError, or ValueError while it runs, or while something hangs on it, which the message names, and
    NotAllowed for somebody else's.
    """
    run = get_run(db, run_id)
    with change(db, "deleted", "run", run.id, run.name, run.owner):
        run = get_run(db, run_id)
        if run.state in (State.RUNNING, State.STOPPING):
            raise ValueError("a run cannot be deleted while it runs: cancel it first")
        if reason := _hangs_on(db, run):
            raise ValueError(reason)
        db.table("runs").delete(run_id)


def _hangs_on(db: Database, run: Run) -> str:
    """Why a run must stay, as a sentence; '' when nothing hangs on it."""
    if run.attack:
        (name,) = db.conn.execute("select name from attacks where id = ?", [run.attack]).fetchone()
        return f"this run is a part of the attack ‘{name}’ ({run.attack}): delete that as a whole, on the Attack page"
    attacks = list(
        db.query(
            "select a.id, a.name, count(*) as n from runs r join attacks a on a.id = r.attack"
            " where r.needs = ? group by a.id order by a.created_at",
            [run.id],
        )
    )
    if attacks:
        names = ", ".join(f"‘{a['name']}’ ({a['id']}, with {a['n']} models of it)" for a in attacks)
        return f"this run is what an attack began from: {names}; delete that first, on the Attack page"
    # A further run is trained on a checkpoint of this one, by its path.
    sql = "select id, name from runs where instr(replace(model, '\\', '/'), ?) order by created_at"
    if further := db.execute(sql, [f"/runs/{run.id}/checkpoints/"]).fetchall():
        names = ", ".join(f"‘{name}’ ({run_id})" for run_id, name in further)
        return f"this run has the model that another begins with: {names}; delete that first"
    return asked_now(db, [run.id])


def asked_now(db: Database, run_ids: Sequence[str]) -> str:
    """Why runs must stay whose models are being asked, as a sentence; '' when none is."""
    marks = ", ".join("?" * len(run_ids))
    sql = f"select count(*) from asking_columns where run in ({marks}) and state in ('waiting', 'asking')"
    if not db.conn.execute(sql, list(run_ids)).fetchone()[0]:
        return ""
    return "a model of this is being asked, on the Ask page: wait for the answers, then delete it"
