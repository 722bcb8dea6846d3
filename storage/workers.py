"""Workers: who is alive to take runs from the queue."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlite_utils import Database

from storage.database import write
from storage.processes import ProcessName


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker. heartbeat: seconds since 1970 by its own clock, another number with each beat; run: what it works
    on."""

    id: str
    process: ProcessName
    heartbeat: float
    run: str | None


def beat(db: Database, *, worker: str, process: ProcessName, run: str | None) -> None:
    """Register the worker, or renew its heartbeat."""
    row = {"id": worker, "host": process.host, "pid": process.pid, "process_started": process.started}
    with write(db):
        row |= {"space": process.space, "heartbeat": time.time(), "run": run}
        db.table("workers").insert(row, replace=True)


def list_workers(db: Database) -> list[WorkerRow]:
    """Every registered worker, the last heartbeat first."""
    rows = db.query("select * from workers order by heartbeat desc")
    return [
        WorkerRow(r["id"], ProcessName(r["host"], r["pid"], r["process_started"], r["space"]), r["heartbeat"], r["run"])
        for r in rows
    ]


def remove_worker(db: Database, worker: str) -> None:
    """Forget a worker that has ended."""
    with write(db):
        db.execute("delete from workers where id = ?", [worker])
