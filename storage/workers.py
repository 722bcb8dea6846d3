"""Workers: who is alive to take runs from the queue."""

from __future__ import annotations

import time
from typing import Any

from sqlite_utils import Database

from storage.database import write


def beat(db: Database, *, worker: str, host: str, pid: int, process_started: float, run: str | None) -> None:
    """Register the worker, or renew its heartbeat."""
    row = {"id": worker, "host": host, "pid": pid, "process_started": process_started, "heartbeat": time.time()}
    with write(db):
        db.table("workers").insert({**row, "run": run}, replace=True)


def list_workers(db: Database) -> list[dict[str, Any]]:
    """Every registered worker: `id, host, pid, process_started, heartbeat, run`."""
    return list(db.query("select * from workers order by heartbeat desc"))


def remove_worker(db: Database, worker: str) -> None:
    """Forget a worker that has ended."""
    with write(db):
        db.execute("delete from workers where id = ?", [worker])
