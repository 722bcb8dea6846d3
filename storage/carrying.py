"""A run that is carried out in another lab's database: the rows that it takes with it, and what comes back of it.

rows = rows_to_carry(db, run)            # where the queue is
store_carried(other, rows)               # in the new, private database of the machine that carries it out
letter = take_letter(other, run.id)      # there, again and again: what was written since the last one
store_letter(db, run, letter)            # here: the lab's database has one writer

Letters are plain data, and may come from a machine that is not wholly trusted: nothing in them names a table, a column
or another run.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from sqlite_utils import Database

from storage.attacks import RESULT_FIELDS as ATTACK_FIELDS
from storage.attacks import replace_cell_results
from storage.database import write
from storage.measurements import RESULT_FIELDS, add_measurements, replace_results
from storage.runs import ENDED, Run, State, add_event, record_stall, set_environment, set_progress
from storage.studies import done_like

Rows = dict[str, list[dict[str, Any]]]
MOST_TRIED = 3  # runs of a study that may have what another one looks for
MEASURED = ("stage", "series", "step", "epoch", "value")
MOST_WORDS = 2_000
# What is raised of data that have another shape than a letter, or that no table takes.
NO_LETTER = (KeyError, TypeError, AttributeError, OverflowError, sqlite3.IntegrityError, sqlite3.InterfaceError)
# What the owner of the queue says itself.
_OWN_EVENTS = ("queued", "stopping", *(state.value for state in ENDED))


def runs_beside(db: Database, run: Run) -> list[str]:
    """The runs that a run looks at while it is carried out: those that it may share with, or that it attacks."""
    if run.attack:
        return [run.needs] if run.needs and _rows(db, "select id from runs where id = ?", run.needs) else []
    if not run.study or not run.cell:
        return []
    stage1 = run.experiment.get("stage1", {})
    depths = stage1.get("checkpoint_epochs") or [stage1.get("epochs")]
    kept = {"memorises": [f"memorised@{epoch}" for epoch in depths], "begins": None}
    found = [
        other
        for key, checkpoints in kept.items()
        for other in done_like(db, run.study, key, run.cell[key], checkpoints)[:MOST_TRIED]
    ]
    return [other for other in dict.fromkeys(found) if other != run.id]


def rows_to_carry(db: Database, run: Run) -> Rows:
    """Every row that a private database needs to carry out a claimed run, as its `store_carried` takes them."""
    beside = runs_beside(db, run)
    waiting = {"state": State.QUEUED.value, "worker": None, "lease_until": None, "attempt": run.attempt - 1}
    runs = [row | {"needs": None} for other in beside for row in _rows(db, "select * from runs where id = ?", other)]
    runs += [row | waiting for row in _rows(db, "select * from runs where id = ?", run.id)]
    if run.attack:
        # The cells beside it only say what they are: none of them may be claimed there.
        others = _rows(db, "select * from runs where attack = ? and id <> ?", run.attack, run.id)
        runs += [row | {"experiment": "{}", "state": State.DONE.value, "worker": None} for row in others]
    elif run.needs not in beside:
        runs[-1]["needs"] = None
    studies = _rows(db, "select * from studies where id = ?", run.study)
    for row in studies:
        # What a study does not keep is removed where the queue is.
        row["plan"] = json.dumps(json.loads(row["plan"]) | {"keep": "all"}, ensure_ascii=False)
    results = [row for other in (*beside, run.id) for row in _rows(db, "select * from results where run = ?", other)]
    attacks = _rows(db, "select * from attacks where id = ?", run.attack)
    nobodys = {"owner": None}  # accounts stay where they are
    return {
        "attacks": [row | nobodys for row in attacks],
        "studies": [row | nobodys for row in studies],
        "runs": [row | nobodys | {"study": run.study if row["study"] == run.study else None} for row in runs],
        "results": results,
    }


def store_carried(db: Database, rows: Rows) -> None:
    """Store what `rows_to_carry` gave in a database that is new."""
    with write(db):
        for table in ("attacks", "studies", "runs", "results"):
            db.table(table).insert_all(rows[table])


def _rows(db: Database, sql: str, *values: str | None) -> list[dict[str, Any]]:
    return list(db.query(sql, list(values)))


def take_letter(db: Database, run_id: str) -> dict[str, Any]:
    """What was written about a run since the last letter; measurements and events are taken out of this database.

    `row`: its state and what it is doing; `measurements`, `events`: new ones; `results`: all rows so far, and
    `attack_results` those of a cell.
    """
    with write(db):
        columns = "state, stalls, error, progress, headline, environment"
        row = _rows(db, f"select {columns} from runs where id = ?", run_id)[0]
        row |= {name: json.loads(row[name]) for name in ("progress", "headline", "environment")}
        measurements = _rows(db, f"select {', '.join(MEASURED)} from measurements where run = ?", run_id)
        events = _rows(db, "select kind, message from events where run = ? order by id", run_id)
        db.execute("delete from measurements where run = ?", [run_id])
        db.execute("delete from events where run = ?", [run_id])
        fields = ", ".join(RESULT_FIELDS)
        results = _rows(db, f"select {fields} from results where run = ? order by checkpoint, position", run_id)
        fields = ", ".join((*ATTACK_FIELDS, "by_fact"))
        cell = _rows(db, f"select {fields} from attack_results where run = ? order by position", run_id)
    return {
        "row": row,
        "measurements": measurements,
        "events": [event for event in events if event["kind"] not in _OWN_EVENTS],
        "results": results,
        "attack_results": [row | {"by_fact": json.loads(row["by_fact"])} for row in cell],
    }


def store_letter(db: Database, run: Run, letter: dict[str, Any]) -> State:
    """Store what a letter says of a run that this worker holds, and return the run's state here.

    The run's end is not stored: `finish_run` does that when its files have come, too. Raises LostRunError, and
    ValueError for what is no letter of a run.
    """
    try:
        row = letter["row"]
        with write(db):
            progress = dict(row["progress"])
            float(progress.get("fraction", 0))  # it is counted with
            state = set_progress(db, run.id, run.attempt, progress)
            if row["environment"]:
                set_environment(db, run.id, run.attempt, dict(row["environment"]))
            if row["stalls"]:
                record_stall(db, run.id, run.attempt, int(row["stalls"]))
            add_measurements(db, run.id, [{name: point[name] for name in MEASURED} for point in letter["measurements"]])
            for event in letter["events"]:
                if event["kind"] not in _OWN_EVENTS:
                    add_event(db, run.id, str(event["kind"])[:40], str(event["message"])[:MOST_WORDS])
            for checkpoint, rows in _by_checkpoint(letter["results"]).items():
                replace_results(db, run.id, checkpoint, rows)
            if letter["attack_results"]:
                replace_cell_results(db, run.id, letter["attack_results"])
    except NO_LETTER as error:
        raise ValueError(f"what was said of run {run.id} cannot be read ({error!r})") from error
    return state


def _by_checkpoint(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["checkpoint"]), []).append(row)
    return found
