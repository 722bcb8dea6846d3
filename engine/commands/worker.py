"""`python -m engine worker`: the process that takes runs from the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.commands.mistake import Home, open_home
from engine.execution.worker import run_worker
from storage.database import default_home


def worker(
    home: Home = None,
    parent: Annotated[int | None, typer.Option(help="End when the process of this id, the parent, ends.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the queue is empty.")] = False,
) -> None:
    """Take runs from the queue until stopped."""
    open_home(home).close()
    run_worker(home or default_home(), parent, once)
