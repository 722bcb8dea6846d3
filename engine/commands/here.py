"""Work that a person waits for: runs carried out in this process, as a worker would, with a bar on standard error."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlite_utils import Database

from engine.cluster.connection import ClusterError, check_address, check_asks_for_token
from engine.commands.mistake import Mistake
from engine.execution.worker import LeaseKeeper, Registration
from storage.database import open_database
from storage.runs import LostRunError, Run, State, finish_run
from storage.workers import remove_worker

POLL_SECONDS = 0.5
Shown = Callable[[Database], tuple[float, str]]


def carry_out_here(
    db: Database, home: Path, *, ended: Callable[[], bool], claim: Callable[[str], Run | None], shown: Shown, go_on: str
) -> None:
    """Carry out what `claim` gives for this worker's id, one run after the other, until all has `ended`, here or in
    other workers. shown: how far it is (0 to 1) and what is done. go_on: what to say to a person who stops it.

    Raises Mistake on Ctrl+C: the run at hand is then cancelled.
    """
    from engine.execution.execute import execute_run  # loads torch, which other commands need not

    me = Registration(db)
    running = None
    try:
        with _Bar(home, shown):
            while not ended():
                me.release_dead_workers()
                me.beat(None)
                running = claim(me.id)
                if running is None:
                    time.sleep(POLL_SECONDS)
                    continue
                me.beat(running.id, force=True)
                # Another worker may take it over while this process sleeps: its end then comes from there.
                with LeaseKeeper(home, me, running), contextlib.suppress(LostRunError):
                    execute_run(db, home, running)
                running = None
    except KeyboardInterrupt:
        if running is not None:
            finish_run(db, running.id, running.attempt, State.CANCELLED)
        raise Mistake(f"stopped; {go_on}") from None
    finally:
        remove_worker(db, me.id)


def check_cluster(address: str | None) -> None:
    """Refuse, before anything is queued, an address at which nothing could be carried out, or nobody answers. Raises
    Mistake."""
    try:
        if address is not None:
            check_address(address)
            check_asks_for_token(address)
    except ClusterError as error:
        raise Mistake(str(error)) from error


def carry_out_on(
    address: str, home: Path, *, ended: Callable[[], bool], claim: Callable[[str], Run | None], shown: Shown, go_on: str
) -> None:
    """As `carry_out_here`, on the machines of the cluster at the address, as many runs at a time as it has room for.

    Raises Mistake on Ctrl+C, and when the cluster cannot be used: what is under way is then in the queue again.
    """
    from engine.cluster.owner import Owner  # loads what only this needs

    try:
        owner = Owner(home, address, claim)
        with _Bar(home, shown):
            owner.work(ended)
    except ClusterError as error:
        raise Mistake(str(error)) from error
    except KeyboardInterrupt:
        raise Mistake(f"stopped; {go_on}") from None


class _Bar:
    """A progress bar fed from stored rows, as the page is; only its end where standard error is no terminal."""

    def __init__(self, home: Path, shown: Shown) -> None:
        self._home, self._shown, self._end = home, shown, threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _show(self) -> None:
        db = open_database(self._home)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("Starting", total=1.0)
            last = False
            while not last:
                last = self._end.wait(POLL_SECONDS)
                fraction, words = self._shown(db)
                bar.update(task, completed=fraction, description=words)
        db.close()
