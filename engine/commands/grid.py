"""Go on with a grid, a study's or an attack's, and carry out what is left of it, with a bar that says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from sqlite_utils import Database

from engine.commands.here import carry_out_here, carry_out_on
from engine.commands.mistake import mistakes_in
from engine.commands.program import program
from storage.grids import STUDY, Kind, grid_counts, read_runs, waiting_runs
from storage.runs import ENDED, LEASE_SECONDS, Run, State, claim_run


def take_up_again(db: Database, kind: Kind, grid: str, retry: Callable[[Database, str], None]) -> None:
    """Queue those runs again that were stopped or failed, where there are any, and say so. Raises Mistake."""
    counts = grid_counts(db, kind, grid)
    if early := sum(counts.get(state.value, 0) for state in (State.FAILED, State.CANCELLED)):
        with mistakes_in(grid):
            retry(db, grid)
        typer.echo(f"{early} {_things(kind)} that were stopped or failed are queued again", err=True)


def _things(kind: Kind) -> str:
    return "runs" if kind is STUDY else "cells"


def carry_out_grid(
    db: Database, home: Path, kind: Kind, grid: str, on: str | None, words: Callable[[dict[str, Any]], str]
) -> None:
    """Carry it out in this process, or on the cluster at the address `on`, beside whatever workers do; ends when all of
    it has. words: what is told of the run at hand, by its cell. Raises Mistake as `engine.commands.here`."""
    things = _things(kind)

    def claim(worker: str) -> Run | None:
        waiting = waiting_runs(db, kind, grid)
        return next(filter(None, (claim_run(db, worker, LEASE_SECONDS, run) for run in waiting)), None)

    def ended() -> bool:
        return all(State(state) in ENDED for state in grid_counts(db, kind, grid))

    def shown(db: Database) -> tuple[float, str]:
        runs = list(read_runs(db, kind, grid))
        done = sum(run["state"] is State.DONE for run in runs)
        told = f"{done} of {len(runs)} {things} done"
        running = next((run for run in runs if run["state"] is State.RUNNING), None)
        if running is None:
            first = next(iter(waiting_runs(db, kind, grid)), None)
            before = first is not None and all(run["run"] != first for run in runs)
            return done / len(runs), f"{told}; first the run that they begin from" if before else told
        return (done + running["progress"].get("fraction", 0)) / len(runs), f"{told}; {words(running['cell'])}"

    go_on = f"go on with: {program()} {kind.name} {grid}"
    if on is None:
        carry_out_here(db, home, ended=ended, claim=claim, shown=shown, go_on=go_on)
    else:
        carry_out_on(on, home, ended=ended, claim=claim, shown=shown, go_on=f"{go_on} --on {on}")
