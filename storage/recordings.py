"""Recordings: runs that were carried out elsewhere, with figures and answers but without models (`runs.recorded`).

They are done from the start, so no worker takes them. `recorded` of such a run says from which file it came (`file`),
when it was made (`at`), by which `command`, on which weights (`base`, `weights`), and what it cost (`seconds`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlite_utils import Database

from storage.database import now, write
from storage.measurements import add_measurements, replace_results
from storage.runs import Run, State, get_run

PLAIN = ("id", "name", "model", "seed", "created_at", "started_at", "finished_at")
ENCODED = ("experiment", "headline", "environment", "recorded")


def taken_in(db: Database, name: str) -> str | None:
    """The hash of the recording of that name that the lab has, or had until someone deleted it; else None."""
    return next((row["hash"] for row in db.query("select hash from recordings where name = ?", [name])), None)


def recorded_runs(db: Database, name: str | None = None) -> list[Run]:
    """The recorded runs that are there, of one file or of all, by file and seed."""
    rows = db.query(
        "select id from runs where recorded is not null and (:name is null or json_extract(recorded, '$.file') = :name)"
        " order by json_extract(recorded, '$.file'), seed",
        {"name": name},
    )
    return [get_run(db, row["id"]) for row in list(rows)]


def seeds_of(db: Database, name: str) -> list[tuple[str, int]]:
    """(id, seed) of the runs of a recording that are there, by seed."""
    sql = "select id, seed from runs where recorded is not null and json_extract(recorded, '$.file') = ? order by seed"
    return [(row["id"], row["seed"]) for row in db.query(sql, [name])]


def recorded_ids(db: Database) -> list[str]:
    """The ids of all recorded runs: changes when they do."""
    return [row["id"] for row in db.query("select id from runs where recorded is not null order by id")]


def replace_recording(db: Database, name: str, digest: str, runs: Iterable[dict[str, Any]]) -> list[str]:
    """Store a recording's runs in place of those of an older file of its name; returns the ids of those.

    A run: the columns `PLAIN` and `ENCODED`, `events`, `measurements`, and `results` by checkpoint.
    """
    with write(db):
        former = [run.id for run in recorded_runs(db, name)]
        for run_id in former:
            db.table("runs").delete(run_id)
        for run in runs:
            encoded = {key: json.dumps(run[key], ensure_ascii=False) for key in ENCODED}
            db.table("runs").insert({key: run[key] for key in PLAIN} | encoded | {"state": State.DONE.value})
            db.table("events").insert_all({"run": run["id"], **event} for event in run["events"])
            add_measurements(db, run["id"], run["measurements"])
            for checkpoint, rows in run["results"].items():
                replace_results(db, run["id"], checkpoint, rows)
        db.table("recordings").insert({"name": name, "hash": digest, "at": now()}, replace=True)
    return former
