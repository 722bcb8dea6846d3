"""A lab that is opened for the first time has something to look at: the quick preset waits in the queue."""

from __future__ import annotations

from app.lab import Lab
from engine.presets import load_preset
from storage.database import now
from storage.runs import Run, add_run, count_runs

PRESET = "quick"
MARK = "first-start.txt"


def queue_first_run(lab: Lab) -> Run | None:
    """Queue the quick preset once in the life of a home folder; None when that was done before or runs exist."""
    lab.home.mkdir(parents=True, exist_ok=True)
    try:
        with (lab.home / MARK).open("x", encoding="utf-8") as file:
            file.write(f"The lab was first opened at {now()}; the default experiment is queued only this once.\n")
    except FileExistsError:
        return None
    if count_runs(lab.db):
        return None
    experiment = load_preset(PRESET).resolved()
    return add_run(
        lab.db,
        name=experiment.name,
        experiment=experiment.model_dump(mode="json"),
        model=experiment.model,
        seed=experiment.seed,
    )
