"""What is measured of a run: the series drawn while it trains, and the result rows at its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from sqlite_utils import Database

from storage.checkpoints import in_order
from storage.database import write


@dataclass(frozen=True)
class Result:
    """One figure of a checkpoint. `facts`: held_out or trained; low, high: its 95 % interval; n: answers.

    options_least, options_most, chance: of a choice, among how many options, and what guessing would reach; None for
    other measures, and in rows of older labs.
    """

    checkpoint: str
    facts: str
    split: str
    language: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    n_facts: int
    options_least: int | None = None
    options_most: int | None = None
    chance: float | None = None


# The series of how long the parts of a finished run took: `stage` is loading, training or evaluation.
SECONDS = "seconds"
# How many tokens of text the training up to a checkpoint (`stage`) reads for each fact; what is replayed apart.
TRAINING_TOKENS = "training_tokens"

RESULT_FIELDS = tuple(field.name for field in fields(Result))


def add_measurements(db: Database, run_id: str, rows: Iterable[dict[str, Any]]) -> None:
    """Store points `{stage, series, step, epoch, value}`; a point measured again after a resume replaces itself."""
    with write(db):
        db.table("measurements").insert_all(({"run": run_id, **row} for row in rows), replace=True)


def list_measurements(db: Database, run_id: str, series: str, limit: int = 2000) -> list[dict[str, Any]]:
    """Points of one series, `{stage, step, epoch, value}` by stage and step; thinned evenly to about `limit`."""
    sql = "select count(*) as n from measurements where run = ? and series = ?"
    count = next(iter(db.query(sql, [run_id, series])))["n"]
    every = max(1, -(-count // limit))
    return list(
        db.query(
            "select stage, step, epoch, value from measurements where run = ? and series = ? and step % ? = 0"
            " order by stage, step",
            [run_id, series, every],
        )
    )


def replace_results(db: Database, run_id: str, checkpoint: str, rows: Iterable[dict[str, Any]]) -> None:
    """Store the result rows of one checkpoint, in place of any older ones. Fields: `RESULT_FIELDS`."""
    with write(db):
        db.execute("delete from results where run = ? and checkpoint = ?", [run_id, checkpoint])
        db.table("results").insert_all(
            {"run": run_id, "position": i, **{k: row.get(k) for k in RESULT_FIELDS}} for i, row in enumerate(rows)
        )


def list_results(db: Database, run_id: str) -> list[Result]:
    """All result rows of a run: base, then memorised and generalised by epoch."""
    columns = ", ".join(RESULT_FIELDS)
    rows = db.query(f"select {columns} from results where run = ? order by checkpoint, position", [run_id])
    return sorted((Result(**row) for row in rows), key=lambda row: in_order(row.checkpoint))
