"""Attack experiments, and their cells: a cell is a run of its own in the queue (`runs.attack`, `runs.cell`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from storage.acting import may_change
from storage.database import write
from storage.deletion import asked_now
from storage.grids import (
    ATTACK,
    GridRun,
    add_grid,
    changing,
    grid_counts,
    read_rows,
    read_runs,
    replan_grid,
    retry_grid,
    stop_grid,
)
from storage.runs import ENDED, State

RESULT_FIELDS = (
    "reading", "role", "checkpoint", "facts", "split", "language", "metric", "value", "low", "high", "n", "n_facts",
)  # fmt: skip
NewCell = tuple[dict[str, Any], str, dict[str, Any]]  # what it does, the base run it needs, that run's experiment


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
    cells: Iterable[NewCell],
    recorded: dict[str, Any] | None = None,
) -> str:
    """Queue an attack and its cells. Returns its id."""
    origin = json.dumps(recorded, ensure_ascii=False) if recorded else None
    return add_grid(db, ATTACK, name=name, plan=experiment, runs=[_queued(name, c) for c in cells], recorded=origin)


def _queued(name: str, new: NewCell) -> GridRun:
    cell, needs, base = new
    return GridRun(name, base, cell["seed"], cell, needs)


def replan_attack(db: Database, attack: str, experiment: dict[str, Any], cells: Iterable[str | NewCell]) -> int:
    """Give an attack a wider plan. Its cells in their order: the runs of those that are there, and new ones, which are
    queued as in `add_attack`. Returns how many are new."""
    name = get_attack(db, attack).name
    runs: list[GridRun | tuple[str, dict[str, Any]]] = [
        (cell, {}) if isinstance(cell, str) else _queued(name, cell) for cell in cells
    ]
    return replan_grid(db, ATTACK, attack, experiment, runs)


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
    return [AttackCell(**row) for row in read_runs(db, ATTACK, attack)]


def cells_like(db: Database, cell: dict[str, Any]) -> list[AttackCell]:
    """The done cells of any attack that do the same, newest first; what they do it to may differ."""
    condition = "cell = ? and state = 'done' order by created_at desc, rowid desc"
    return [AttackCell(**row) for row in read_rows(db, condition, json.dumps(cell))]


def attack_counts(db: Database, attack: str) -> dict[str, int]:
    """How many cells are in each state."""
    return grid_counts(db, ATTACK, attack)


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
    stop_grid(db, ATTACK, attack)


def retry_attack(db: Database, attack: str) -> None:
    """Queue the failed and cancelled cells again, and their base runs, done ones too: a checkpoint may be damaged. Base
    runs that are somebody else's stay as they are.

    Raises KeyError, and NotAllowed for somebody else's, and as `add_run`.
    """
    needed = "select id, owner from runs where id in (select needs from runs where attack = ?)"
    mine = {run for run, owner in db.execute(needed, [attack]) if may_change(owner)}
    stuck = [cell for cell in list_cells(db, attack) if cell.state in (State.FAILED, State.CANCELLED)]
    # One that is gone is skipped: the cell says so.
    retry_grid(db, ATTACK, attack, before=dict.fromkeys(cell.needs for cell in stuck if cell.needs in mine))


def delete_attack(db: Database, attack: str) -> None:
    """Delete an attack with its cells. Raises KeyError, or ValueError while a cell waits or runs, or is being asked,
    and NotAllowed for somebody else's."""
    with changing(db, ATTACK, "deleted", attack):
        cells = list_cells(db, attack)
        if any(cell.state not in ENDED for cell in cells):
            raise ValueError("an attack cannot be deleted while one of its cells waits or runs: stop it first")
        if reason := asked_now(db, [cell.run for cell in cells]):
            raise ValueError(reason)
        db.table("attacks").delete(attack)
