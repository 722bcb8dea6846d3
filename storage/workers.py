"""Workers: who is alive to take runs from the queue."""

from __future__ import annotations

import time
from typing import Any

from sqlite_utils import Database

from storage.database import write
from storage.processes import ProcessName


def beat(db: Database, *, worker: str, process: ProcessName, run: str | None) -> None:
    """Register the worker, or renew its heartbeat."""
    row = {"id": worker, "host": process.host, "pid": process.pid, "process_started": process.started}
    with write(db):
        db.table("workers").insert({**row, "heartbeat": time.time(), "run": run}, replace=True)


def list_workers(db: Database) -> list[dict[str, Any]]:
    """Every registered worker: `id, host, pid, process_started, heartbeat, run`."""
    return list(db.query("select * from workers order by heartbeat desc"))


def remove_worker(db: Database, worker: str) -> None:
    """Forget a worker that has ended."""
    with write(db):
        db.execute("delete from workers where id = ?", [worker])
