"""`python -m engine worker`: the process that takes runs from the queue, for this machine or for a cluster."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer
from sqlite_utils import Database

from engine.cluster.connection import ClusterError
from engine.commands.mistake import Home, Mistake, On, open_home
from engine.execution.worker import run_worker
from engine.logs import set_up_logs
from engine.parent import end_with_parent
from storage.database import default_home
from storage.runs import count_by_state


def worker(
    home: Home = None,
    parent: Annotated[int | None, typer.Option(help="End when the process of this id, the parent, ends.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the queue is empty.")] = False,
    on: On = None,
) -> None:
    """Take runs from the queue until stopped."""
    db = open_home(home)
    folder = home or default_home()
    if on is None:
        db.close()
        run_worker(folder, parent, once)
    else:
        _run_owner(db, folder, on, parent, once)


def _run_owner(db: Database, home: Path, address: str, parent: int | None, once: bool) -> None:
    """Work for a cluster until SIGTERM or SIGINT, or until the process `parent` is gone. Raises Mistake."""
    from engine.cluster.owner import Owner  # the figures of studies need libraries that other commands do not

    set_up_logs()
    try:
        owner = Owner(home, address)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: owner.stop.set())
        if parent is not None:
            end_with_parent(parent, on_end=owner.stop.set)
        owner.work((lambda: not count_by_state(db).get("queued", 0)) if once else None)
    except ClusterError as error:
        raise Mistake(str(error)) from error
    finally:
        db.close()
