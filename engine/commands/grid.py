"""Carry out what is left of a grid, a study's or an attack's, with a bar that says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.commands.here import carry_out_here, carry_out_on
from engine.commands.program import program
from storage.grids import Kind, grid_counts, read_runs, waiting_runs
from storage.runs import ENDED, LEASE_SECONDS, Run, State, claim_run


def carry_out_grid(
    db: Database, home: Path, kind: Kind, grid: str, on: str | None, words: Callable[[dict[str, Any]], str]
) -> None:
    """Carry it out in this process, or on the cluster at the address `on`, beside whatever workers do; ends when all of
    it has. words: what is told of the run at hand, by its cell. Raises Mistake as `engine.commands.here`."""
    things = "runs" if kind.name == "study" else "cells"

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
