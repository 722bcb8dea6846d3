"""Model servers: what runs, in which state, and who watches over it. The next lab reads this to end what a
killed one left, and `ask` to find a server that runs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Literal

from sqlite_utils import Database

from storage.database import now, write
from storage.processes import ProcessName

ServerState = Literal["starting", "ready", "restarting", "waiting", "failed"]


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server. message: a sentence or ''; owner: the lab (or command) that watches over it;
    keeper: the process that leads its session, None before it has one. start_seconds: from start to first answer.
    """

    id: str
    backend: str
    state: ServerState
    message: str
    port: int | None
    keeper: ProcessName | None
    owner: ProcessName
    restarts: int
    start_seconds: float | None


def add_server(db: Database, *, backend: str, serves: str, reason: str, owner: ProcessName) -> str:
    """Register a server that is about to be started; returns its id, which is safe in paths.

    `serves`: '' for every model, else a base's key or RUN/CHECKPOINT.
    """
    server = secrets.token_hex(4)
    row = {"id": server, "backend": backend, "serves": serves, "reason": reason, "state": "starting"}
    row |= {"plan": ""}  # not used any more
    who = {"host": owner.host, "owner_pid": owner.pid, "owner_started": owner.started, "space": owner.space}
    with write(db):
        db.table("servers").insert({**row, **who, "started_at": now()})
    return server


def list_servers(db: Database) -> list[ServerRow]:
    """Every registered server, oldest first; of some the owner may have died."""
    return [_row(r) for r in db.query("select * from servers order by started_at, id")]


def update_server(db: Database, server: str, **columns: Any) -> None:
    """Change columns of a row; `keeper` takes a ProcessName. A row that is gone stays gone."""
    if "keeper" in columns:
        keeper = columns.pop("keeper")
        columns |= {"pid": keeper and keeper.pid, "process_started": keeper and keeper.started}
    assignments = ", ".join(f"{name} = ?" for name in columns)
    with write(db):
        db.execute(f"update servers set {assignments} where id = ?", [*columns.values(), server])


def remove_server(db: Database, server: str) -> None:
    """Forget a server that has ended, and what it held."""
    with write(db):
        db.execute("delete from servers where id = ?", [server])
        db.execute("delete from devices where kind = 'server' and holder = ?", [server])


def left_servers(db: Database) -> list[ServerRow]:
    """Servers whose owner is gone: of this machine, since of others nothing is known."""
    return [row for row in list_servers(db) if not row.owner.lives]


def _row(r: dict[str, Any]) -> ServerRow:
    keeper = ProcessName(r["host"], r["pid"], r["process_started"], r["space"]) if r["pid"] else None
    owner = ProcessName(r["host"], r["owner_pid"], r["owner_started"], r["space"])
    same = ("id", "backend", "state", "message", "port", "restarts", "start_seconds")
    return ServerRow(**{name: r[name] for name in same}, keeper=keeper, owner=owner)
