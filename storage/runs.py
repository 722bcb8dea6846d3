"""Runs: the queue, the lease of the one that is being worked on, its progress and its end.

A run is one execution of an experiment. Its row is the only channel between a page and the worker.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlite_utils import Database

from storage.acting import actor_id
from storage.audit import addition, change
from storage.database import now, write


class State(StrEnum):
    """The states of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


LEASE_SECONDS = 30.0  # how long a claimed run is left alone; its holder renews it every few seconds
ENDED = (State.DONE, State.FAILED, State.CANCELLED)
NO_MODEL = "a recording holds no model: run its experiment here first (on its page: Run it here)"


class LostRunError(RuntimeError):
    """The run is no longer this process's to write to: another worker claimed it, or it was deleted."""


@dataclass(frozen=True)
class Run:
    """One row. `experiment`, `progress`, `headline` and `environment` are plain data; times are ISO 8601 UTC.

    attack, cell, cell_place: for a cell of an attack experiment, which and what it does; needs: a run that must have
    ended before this one starts. study: of which study the run is a part; `cell` then has its place on the axes.
    recorded: of one that was carried out elsewhere and has no models here, see storage/recordings.py. owner: the
    account that started it, None for nobody's. priority: above others' runs where it is more than theirs. place: where
    it stands among its owner's own; None for the order in which they were started.
    """

    id: str
    name: str
    state: State
    experiment: dict[str, Any]
    model: str
    seed: int
    cloned_from: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempt: int
    worker: str | None
    lease_until: float | None
    stalls: int
    error: str | None
    progress: dict[str, Any]
    headline: dict[str, Any]
    environment: dict[str, Any]
    attack: str | None = None
    cell: dict[str, Any] | None = None
    cell_place: int | None = None
    needs: str | None = None
    recorded: dict[str, Any] | None = None
    study: str | None = None
    owner: str | None = None
    priority: int = 0
    place: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to this run by itself."""
        return self.state in ENDED


# Everything but the experiment, which may be megabytes.
_SUMMARY = """id, name, state, '{}' as experiment, model, seed, cloned_from, created_at, started_at, finished_at,
    attempt, worker, lease_until, stalls, error, progress, headline, environment, attack, cell, cell_place, needs,
    recorded, study, owner, priority, place"""


def _run(row: dict[str, Any]) -> Run:
    decoded = {k: json.loads(row[k]) for k in ("experiment", "progress", "headline", "environment")}
    decoded |= {k: json.loads(row[k]) if row[k] else None for k in ("cell", "recorded")}
    return Run(**{**row, **decoded, "state": State(row["state"])})


def add_run(
    db: Database, *, name: str, experiment: dict[str, Any], model: str, seed: int, cloned_from: str | None = None
) -> Run:
    """Queue a run of a resolved experiment; returns the stored row. Its id is short and safe in paths and addresses.

    Raises NotAllowed for somebody who may only look, or has as much in the lab as they may.
    """
    run_id, owner = secrets.token_hex(4), actor_id()
    with addition(db, "started", "run", run_id, name, runs=1):
        db.table("runs").insert(
            {
                "id": run_id,
                "name": name,
                "experiment": json.dumps(experiment, ensure_ascii=False),
                "model": model,
                "seed": seed,
                "cloned_from": cloned_from,
                "created_at": now(),
                "owner": owner,
            }
        )
        add_event(db, run_id, "queued", "Queued")
    return get_run(db, run_id)


def get_run(db: Database, run_id: str) -> Run:
    """One run with its experiment. Raises KeyError when there is none of that id."""
    for row in db.query("select * from runs where id = ?", [run_id]):
        return _run(row)
    raise KeyError(run_id)


def list_runs(
    db: Database,
    *,
    limit: int = 50,
    offset: int = 0,
    search: str = "",
    state: str = "",
    made_here: bool = False,
    of_studies: bool = True,
) -> list[Run]:
    """Runs, newest first, without their experiments (an empty dict stands there). `search` looks in name, id, model.

    made_here: without recordings, which have no models; of_studies: whether the runs of studies are among them. The
    cells of attacks are not: see storage/attacks.py.
    """
    condition, parameters = _filter(search, state, made_here, of_studies)
    sql = f"select {_SUMMARY} from runs where {condition} order by created_at desc, rowid desc limit ? offset ?"
    return [_run(row) for row in db.query(sql, [*parameters, limit, offset])]


def count_runs(db: Database, *, search: str = "", state: str = "", of_studies: bool = True) -> int:
    """How many runs `list_runs` would return without a limit."""
    condition, parameters = _filter(search, state, of_studies=of_studies)
    return next(iter(db.query(f"select count(*) as n from runs where {condition}", parameters)))["n"]


def count_by_state(db: Database) -> dict[str, int]:
    """How many runs are in which state, those of studies and attacks included, recordings not."""
    sql = "select state, count(*) as n from runs where recorded is null group by state"
    return {row["state"]: row["n"] for row in db.query(sql)}


def _filter(search: str, state: str, made_here: bool = False, of_studies: bool = True) -> tuple[str, list[Any]]:
    condition, parameters = "attack is null", []
    if made_here:
        condition += " and recorded is null"
    if not of_studies:
        condition += " and study is null"
    if search.strip():
        condition += " and (instr(lower(name), ?) or instr(id, ?) or instr(lower(model), ?))"
        parameters += [search.strip().lower()] * 3
    if state:
        condition += " and state = ?"
        parameters.append(state)
    return condition, parameters


# Whose turn it is: first what had begun, then by priority; then whoever has least at work, then whoever was served the
# longest ago; of a person's own in their order.
TURN = """(state = 'queued'), priority desc,
    (select count(*) from runs busy where busy.state in ('running', 'stopping') and busy.owner is runs.owner
        and busy.lease_until >= :clock),
    (select at from turns where turns.owner = coalesce(runs.owner, '')),
    coalesce(place, rowid), rowid"""


def claim_run(
    db: Database, worker: str, lease_seconds: float, run_id: str | None = None, *, attack: str | None = None
) -> Run | None:
    """Take the run whose turn it is of those that wait, or whose worker is gone; None when there is none.

    The runs of several people take turns: see storage/run_queue.py. `run_id` claims that run only, `attack` cells of
    that attack only. A run that needs another waits for its end. Atomic: of many workers exactly one gets a run. A run
    that was being stopped when its worker died is claimed too, so that its stop is carried out. A lapsed lease is not
    enough while its worker is registered: the clock may have been set, and who finds a worker dead makes it
    unregistered (`expire_lease`, `remove_worker`).
    """
    clock = time.time()
    claim = {"worker": worker, "until": clock + lease_seconds, "now": now()}
    with write(db):
        rows = list(
            db.query(
                f"""update runs set
                    state = case state when 'stopping' then 'stopping' else 'running' end,
                    worker = :worker, lease_until = :until, attempt = attempt + 1, error = null,
                    started_at = coalesce(started_at, :now)
                where id = (
                    select id from runs
                    where (state = 'queued' or (state in ('running', 'stopping')
                            and lease_until < :clock and (lease_until = 0
                                or worker not in (select id from workers where id <> :worker))))
                        and (:id is null or id = :id) and (:attack is null or attack = :attack)
                        and (needs is null or needs not in
                            (select id from runs where state in ('queued', 'running', 'stopping')))
                        and (needs is null or needs not in (select id from runs where state in ('failed', 'cancelled'))
                            or not exists (select 1 from runs as beside where beside.needs = runs.needs
                                and beside.id <> runs.id and beside.state in ('running', 'stopping')))
                    order by {TURN} limit 1)
                returning *""",
                claim | {"clock": clock, "id": run_id, "attack": attack},
            )
        )
        for row in rows:
            turn = {"owner": row["owner"] or "", "at": claim["now"]}
            db.table("turns").insert(turn, replace=True)
    return _run(rows[0]) if rows else None


def held_run(db: Database, worker: str) -> Run | None:
    """The run that this worker holds now, or None."""
    sql = "select * from runs where worker = ? and state in ('running', 'stopping') order by started_at desc limit 1"
    return next((_run(row) for row in db.query(sql, [worker])), None)


def renew_lease(db: Database, run_id: str, attempt: int, lease_seconds: float) -> State:
    """Push the lease on and return the run's state, so that a wish to stop is seen. Raises LostRunError."""
    return _set(db, run_id, attempt, "lease_until", time.time() + lease_seconds)


def set_progress(db: Database, run_id: str, attempt: int, progress: dict[str, Any]) -> State:
    """Store what the run is doing (plain data) and return its state. Raises LostRunError."""
    return _set(db, run_id, attempt, "progress", json.dumps(progress))


def set_environment(db: Database, run_id: str, attempt: int, environment: dict[str, Any]) -> None:
    """Store versions, hardware and the folder of the run. Raises LostRunError."""
    _set(db, run_id, attempt, "environment", json.dumps(environment))


def record_stall(db: Database, run_id: str, attempt: int, stalls: int) -> None:
    """Store how many training processes died in a row without progress. Raises LostRunError."""
    _set(db, run_id, attempt, "stalls", stalls)


def _set(db: Database, run_id: str, attempt: int, column: str, value: str | float) -> State:
    """Set a column of a run that this worker holds, and return the run's state. Raises LostRunError."""
    with write(db):
        rows = list(
            db.query(
                f"update runs set {column} = ? where id = ? and attempt = ? and state in ('running', 'stopping')"
                " returning state",
                [value, run_id, attempt],
            )
        )
    if not rows:
        raise LostRunError(run_id)
    return State(rows[0]["state"])


def finish_run(
    db: Database, run_id: str, attempt: int, state: State, *, error: str | None = None, headline: dict | None = None
) -> None:
    """End a run that this worker holds: done, failed (with a sentence) or cancelled. Raises LostRunError."""
    with write(db):
        _owned(db, run_id, attempt)
        changes: dict[str, Any] = {"state": state.value, "finished_at": now(), "error": error}
        if headline is not None:
            changes["headline"] = json.dumps(headline)
        db.table("runs").update(run_id, {**changes, "worker": None, "lease_until": None})
        words = {State.DONE: "Finished", State.CANCELLED: "Cancelled", State.FAILED: error or "Failed"}
        add_event(db, run_id, state.value, words[state])


def release_run(db: Database, run_id: str, attempt: int) -> None:
    """Give a run back to the queue (an orderly stop of the worker): the next worker goes on from its checkpoint."""
    with write(db):
        _owned(db, run_id, attempt)
        db.execute(
            "update runs set worker = null, lease_until = 0,"
            " state = case state when 'running' then 'queued' else state end where id = ?",
            [run_id],
        )


def expire_lease(db: Database, worker: str) -> None:
    """Make the runs of a worker that is known to be dead claimable at once."""
    with write(db):
        db.execute("update runs set lease_until = 0 where worker = ? and state in ('running', 'stopping')", [worker])


def request_stop(db: Database, run_id: str) -> State:
    """Ask for a run to be cancelled; a queued one is cancelled at once. Returns the new state.

    Raises KeyError, and NotAllowed for somebody else's.
    """
    run = get_run(db, run_id)
    if run.ended:
        return run.state
    with change(db, "cancelled", "run", run.id, run.name, run.owner):
        run = get_run(db, run_id)
        if run.state is State.QUEUED:
            db.table("runs").update(run_id, {"state": "cancelled", "finished_at": now()})
            add_event(db, run_id, "cancelled", "Cancelled before it started")
            return State.CANCELLED
        if run.state is State.RUNNING:
            db.table("runs").update(run_id, {"state": "stopping"})
            add_event(db, run_id, "stopping", "Asked to stop")
            return State.STOPPING
        return run.state


def retry_run(db: Database, run_id: str) -> State:
    """Queue an ended run again; it goes on from its last checkpoint. Raises KeyError, ValueError for a
    recording, NotAllowed for somebody else's, and as `add_run`.

    A done one is read through: checkpoints that are missing or damaged are trained again, the others stay. A cell that
    was measured elsewhere, and has no models here, stays as it is.
    """
    run = get_run(db, run_id)
    with change(db, "took up again", "run", run.id, run.name, run.owner, queues=True):
        run = get_run(db, run_id)
        if run.recorded:
            raise ValueError(NO_MODEL)
        if not run.ended or (run.attack and not run.needs):
            return run.state
        db.table("runs").update(run_id, {"state": "queued", "error": None, "finished_at": None, "stalls": 0})
        add_event(db, run_id, "queued", "Queued again")
        return State.QUEUED


def usual_seconds(db: Database) -> dict[tuple[str, ...], float]:
    """How long done runs took on average: by `("of", ATTACK or STUDY)`, `("like", MODEL, NAME)` and `("on", MODEL)`."""
    took = "(julianday(finished_at) - julianday(started_at)) * 86400"
    sql = f"""select coalesce(attack, study, ''), model, case when coalesce(attack, study) is null then name end,
        count(*), sum({took}) from runs
        where state = 'done' and recorded is null and {took} is not null group by 1, 2, 3"""
    found: dict[tuple[str, ...], list[float]] = {}
    for of, model, name, count, seconds in db.execute(sql):
        for key in [("of", of)] if of else [("like", model, name), ("on", model)]:
            summed = found.setdefault(key, [0, 0.0])
            summed[0] += count
            summed[1] += seconds
    return {key: seconds / count for key, (count, seconds) in found.items()}


def seconds_of_those_at_work(db: Database) -> float | None:
    """How long the runs that are at work have left, all together; None when one of them does not tell."""
    sql = "select json_extract(progress, '$.seconds_left') from runs where state in ('running', 'stopping')"
    left = [row[0] for row in db.execute(sql)]
    return None if None in left else float(sum(left))


def add_event(db: Database, run_id: str, kind: str, message: str) -> None:
    """Append one line to the run's history."""
    with write(db):
        db.table("events").insert({"run": run_id, "at": now(), "kind": kind, "message": message})


def list_events(db: Database, run_id: str, limit: int = 200) -> list[dict[str, Any]]:
    """The last events of a run, oldest first: `id, run, at, kind, message`."""
    rows = list(db.query("select * from events where run = ? order by id desc limit ?", [run_id, limit]))
    return rows[::-1]


def _owned(db: Database, run_id: str, attempt: int) -> None:
    sql = "select 1 from runs where id = ? and attempt = ? and state in ('running', 'stopping')"
    if not list(db.query(sql, [run_id, attempt])):
        raise LostRunError(run_id)
