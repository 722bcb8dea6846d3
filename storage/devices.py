"""Who holds an accelerator: one run alone, or model servers together; never both.

A run goes before servers: while one waits for a device, no server may take it, and those that hold it are ended by
their supervisor. A hold ends with the process that it names, however that ends.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlite_utils import Database

from storage.database import now, write
from storage.processes import ProcessName

Kind = Literal["run", "server"]


@dataclass(frozen=True, slots=True)
class Hold:
    """One row: a run or server that holds the device, or (a run only) waits for it. `since` is ISO 8601 UTC."""

    device: str
    holder: str
    kind: Kind
    state: Literal["holding", "waiting"]
    process: ProcessName
    since: str


def device_holds(db: Database, device: str) -> list[Hold]:
    """Every living hold of a device, and every living wish for it, oldest first."""
    rows = db.query("select * from devices where device = ? order by since, holder", [device])
    holds = [
        Hold(r["device"], r["holder"], r["kind"], r["state"],
             ProcessName(r["host"], r["pid"], r["process_started"], r["space"]), r["since"])
        for r in rows
    ]  # fmt: skip
    return [hold for hold in holds if hold.process.lives]


def request_for_run(db: Database, device: str, run: str, process: ProcessName) -> bool:
    """Take the device for a run, or stand in line for it. Ask again until it is True."""
    with write(db):
        others = [h for h in device_holds(db, device) if h.holder != run]
        ahead = any(h.state == "holding" for h in others)
        _put(db, device, run, "run", "waiting" if ahead else "holding", process)
    return not ahead


def take_for_server(db: Database, devices: Collection[str], server: str, process: ProcessName) -> str | None:
    """Take all the devices for a server, or none: returns a run that has one or waits for it, None on success."""
    with write(db):
        for device in devices:
            if run := run_on_device(db, device):
                return run
        for device in devices:
            _put(db, device, server, "server", "holding", process)
    return None


def run_on_device(db: Database, device: str) -> str | None:
    """The run that has the device, or else the first that waits for it."""
    runs = [h for h in device_holds(db, device) if h.kind == "run"]
    runs.sort(key=lambda h: h.state != "holding")
    return runs[0].holder if runs else None


def release_device(db: Database, device: str, holder: str) -> None:
    """Give the device back, or no longer wait for it."""
    with write(db):
        db.execute("delete from devices where device = ? and holder = ?", [device, holder])


def _put(db: Database, device: str, holder: str, kind: Kind, state: str, process: ProcessName) -> None:
    row = {"device": device, "holder": holder, "kind": kind, "state": state, "since": now()}
    who = {"host": process.host, "pid": process.pid, "process_started": process.started, "space": process.space}
    db.table("devices").insert({**row, **who}, replace=True)
