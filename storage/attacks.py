"""Attack experiments, and their cells: a cell is a run of its own in the queue (`runs.attack`, `runs.cell`)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from storage.acting import actor_id, check_may_change, may_change
from storage.audit import addition, change
from storage.database import now, write
from storage.deletion import asked_now
from storage.runs import ENDED, State, add_event, request_stop, retry_run

RESULT_FIELDS = (
    "reading", "role", "checkpoint", "facts", "split", "language", "metric", "value", "low", "high", "n", "n_facts",
)  # fmt: skip
_JSON = ("cell", "progress", "headline")


@dataclass(frozen=True)
class Attack:
    """One attack experiment: `experiment` is plain data, resolved.

    recorded: of one that was measured elsewhere and whose models are not here: `at`, `command`, `environment`. owner:
    the account that started it, None for nobody's.
    """

    id: str
    name: str
    experiment: dict[str, Any]
    created_at: str
    recorded: dict[str, Any] | None = None
    owner: str | None = None


@dataclass(frozen=True)
class AttackCell:
    """One cell: its run's id and state, what it does (`cell`), the base run that it waits for (`needs`).

    headline: once it is done, `harden_seconds` and `train_seconds`.
    """

    run: str
    state: State
    cell: dict[str, Any]
    needs: str
    progress: dict[str, Any]
    headline: dict[str, Any]
    error: str | None
    started_at: str | None
    finished_at: str | None


def add_attack(
    db: Database,
    *,
    name: str,
    experiment: dict[str, Any],
    cells: Iterable[tuple[dict[str, Any], str, dict[str, Any]]],
    recorded: dict[str, Any] | None = None,
) -> str:
    """Queue an attack; a cell is (what it does, the base run it needs, that run's experiment). Returns its id."""
    attack, owner, planned = secrets.token_hex(4), actor_id(), list(cells)
    with addition(db, "started", "attack", attack, name, runs=len(planned)):
        plan = json.dumps(experiment, ensure_ascii=False)
        origin = json.dumps(recorded, ensure_ascii=False) if recorded else None
        row = {"id": attack, "name": name, "experiment": plan, "created_at": now(), "recorded": origin,
               "owner": owner}  # fmt: skip
        db.table("attacks").insert(row)
        for place, cell in enumerate(planned):
            _add_cell(db, attack, name, place, owner, *cell)
    return attack


def _add_cell(
    db: Database,
    attack: str,
    name: str,
    place: int,
    owner: str | None,
    cell: dict[str, Any],
    needs: str,
    base: dict[str, Any],
) -> None:
    run = secrets.token_hex(4)
    db.table("runs").insert(
        {"id": run, "name": name, "experiment": json.dumps(base, ensure_ascii=False), "model": base["model"],
         "seed": cell["seed"], "created_at": now(), "attack": attack, "cell": json.dumps(cell),
         "cell_place": place, "needs": needs, "owner": owner}
    )  # fmt: skip
    add_event(db, run, "queued", "Queued")


def replan_attack(
    db: Database,
    attack: str,
    experiment: dict[str, Any],
    cells: Iterable[str | tuple[dict[str, Any], str, dict[str, Any]]],
) -> int:
    """Give an attack a wider plan. Its cells in their order: the runs of those that are there, and new ones, which are
    queued as in `add_attack`. Returns how many are new."""
    added = 0
    with write(db):
        whole = get_attack(db, attack)
        check_may_change("this attack", whole.owner)
        db.table("attacks").update(attack, {"experiment": json.dumps(experiment, ensure_ascii=False)})
        for place, cell in enumerate(cells):
            if isinstance(cell, str):
                db.table("runs").update(cell, {"cell_place": place})
            else:
                _add_cell(db, attack, whole.name, place, whole.owner, *cell)
                added += 1
    return added


def add_recorded_attack(
    db: Database, *, name: str, experiment: dict[str, Any], recorded: dict[str, Any], cells: Iterable[dict[str, Any]]
) -> tuple[str, list[str]]:
    """Store an attack whose cells were done elsewhere. Returns its id and those of its cells' runs.

    A cell: `cell`, `base` (the attacked run's experiment), `headline`, `started_at`, `finished_at`, and `results` as
    `replace_cell_results` takes them.
    """
    done = list(cells)
    with write(db):
        attack = add_attack(
            db, name=name, experiment=experiment, cells=[(c["cell"], "", c["base"]) for c in done], recorded=recorded
        )
        runs = [cell.run for cell in list_cells(db, attack)]
        for run, c in zip(runs, done, strict=True):
            db.table("runs").update(
                run,
                {"state": State.DONE.value, "headline": json.dumps(c["headline"]), "started_at": c["started_at"],
                 "finished_at": c["finished_at"]},
            )  # fmt: skip
            replace_cell_results(db, run, c["results"])
    return attack, runs


def get_attack(db: Database, attack: str) -> Attack:
    """One attack. Raises KeyError."""
    for row in db.query("select * from attacks where id = ?", [attack]):
        return _attack(row)
    raise KeyError(attack)


def _attack(row: dict[str, Any]) -> Attack:
    recorded = json.loads(row["recorded"]) if row["recorded"] else None
    return Attack(**{**row, "experiment": json.loads(row["experiment"]), "recorded": recorded})


def list_attacks(db: Database, *, limit: int = 50) -> list[Attack]:
    """Attacks, newest first."""
    sql = "select * from attacks order by created_at desc, rowid desc limit ?"
    return [_attack(row) for row in db.query(sql, [limit])]


def count_attacks(db: Database) -> int:
    """How many attacks there are."""
    return next(iter(db.query("select count(*) as n from attacks")))["n"]


def list_cells(db: Database, attack: str) -> list[AttackCell]:
    """The cells of an attack in the order of its grid."""
    return _cells(db, "attack = ? order by cell_place", attack)


def cells_like(db: Database, cell: dict[str, Any]) -> list[AttackCell]:
    """The done cells of any attack that do the same, newest first; what they do it to may differ."""
    return _cells(db, "cell = ? and state = 'done' order by created_at desc, rowid desc", json.dumps(cell))


def _cells(db: Database, condition: str, value: str) -> list[AttackCell]:
    columns = "id as run, state, cell, needs, progress, headline, error, started_at, finished_at"
    rows = db.query(f"select {columns} from runs where {condition}", [value])
    return [
        AttackCell(**row | {"state": State(row["state"])} | {name: json.loads(row[name]) for name in _JSON})
        for row in rows
    ]


def attack_counts(db: Database, attack: str) -> dict[str, int]:
    """How many cells are in each state."""
    sql = "select state, count(*) as n from runs where attack = ? group by state"
    return {row["state"]: row["n"] for row in db.query(sql, [attack])}


def base_runs(db: Database, attack: str) -> list[str]:
    """The runs whose checkpoints are attacked, in the order of the cells."""
    sql = "select needs from runs where attack = ? group by needs order by min(cell_place)"
    return [row["needs"] for row in db.query(sql, [attack])]


def replace_cell_results(db: Database, run: str, rows: Iterable[dict[str, Any]]) -> None:
    """Store a cell's result rows in place of older ones: `RESULT_FIELDS`, and `by_fact` (a fact's hits and answers)."""
    with write(db):
        db.execute("delete from attack_results where run = ?", [run])
        db.table("attack_results").insert_all(
            {"run": run, "position": i, "by_fact": json.dumps(row["by_fact"]), **{k: row[k] for k in RESULT_FIELDS}}
            for i, row in enumerate(rows)
        )


def asked_languages(db: Database, attack: str, split: str) -> list[str]:
    """The languages in which an attack asked prompts of a split."""
    sql = (
        "select distinct language from attack_results where run in (select id from runs where attack = ?) and split = ?"
    )
    return sorted(row["language"] for row in db.query(sql, [attack, split]))


def cell_results(db: Database, run: str) -> list[dict[str, Any]]:
    """The result rows of one cell, as `list_attack_results` gives them."""
    return _results(db, "r.id = ?", run)


def list_attack_results(db: Database, attack: str, **asked: str) -> list[dict[str, Any]]:
    """The result rows of an attack so far: `run`, `RESULT_FIELDS`, the fields of their cell, in which the reading that
    it trained on is called `attacked_reading`, and `by_fact`: `[[sum, answers], …]`, one pair a fact, for intervals
    over several cells. asked: only those of these `split` or `language`."""
    wanted = "".join(f" and a.{name} = ?" for name in ("split", "language") if name in asked)
    values = [asked[name] for name in ("split", "language") if name in asked]
    return _results(db, f"r.attack = ?{wanted}", attack, *values)


def _results(db: Database, condition: str, *values: str) -> list[dict[str, Any]]:
    columns = ", ".join(f"a.{name}" for name in (*RESULT_FIELDS, "by_fact"))
    rows = db.query(
        f"""select r.cell, a.run, {columns} from attack_results a join runs r on r.id = a.run
        where {condition} order by r.cell_place, a.position""",
        values,
    )
    found = []
    for row in rows:
        cell = json.loads(row.pop("cell"))
        cell["attacked_reading"] = cell.pop("reading")
        found.append({**cell, **row, "by_fact": json.loads(row["by_fact"])})
    return found


def stop_attack(db: Database, attack: str) -> None:
    """Ask every cell that has not ended to stop. Raises KeyError, and NotAllowed for somebody else's."""
    with _changing(db, "stopped", attack):
        for cell in list_cells(db, attack):
            request_stop(db, cell.run)


def _changing(db: Database, act: str, attack: str, queues: bool = False) -> AbstractContextManager[None]:
    whole = get_attack(db, attack)
    return change(db, act, "attack", attack, whole.name, whole.owner, queues)


def retry_attack(db: Database, attack: str) -> None:
    """Queue the failed and cancelled cells again, and their base runs, done ones too: a checkpoint may be damaged. Base
    runs that are somebody else's stay as they are.

    Raises KeyError, and NotAllowed for somebody else's, and as `add_run`.
    """
    needed = "select id, owner from runs where id in (select needs from runs where attack = ?)"
    bases = {run for run, owner in db.execute(needed, [attack]) if may_change(owner)}
    with _changing(db, "took up again", attack, queues=True):
        cells = [cell for cell in list_cells(db, attack) if cell.state in (State.FAILED, State.CANCELLED)]
        for run in (*dict.fromkeys(c.needs for c in cells if c.needs in bases), *(c.run for c in cells)):
            with suppress(KeyError):  # a base run that is gone: the cell says so
                retry_run(db, run)


def delete_attack(db: Database, attack: str) -> None:
    """Delete an attack with its cells. Raises KeyError, or ValueError while a cell waits or runs, or is being asked,
    and NotAllowed for somebody else's."""
    with _changing(db, "deleted", attack):
        cells = list_cells(db, attack)
        if any(cell.state not in ENDED for cell in cells):
            raise ValueError("an attack cannot be deleted while one of its cells waits or runs: stop it first")
        if reason := asked_now(db, [cell.run for cell in cells]):
            raise ValueError(reason)
        db.table("attacks").delete(attack)
