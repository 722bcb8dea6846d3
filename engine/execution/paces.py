"""How earlier runs of this lab compare with what was guessed for them, by which the next estimate is corrected."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from engine.costs import Pace, pace_of
from engine.estimate import estimate_experiment
from engine.experiment import Experiment
from storage.measurements import SECONDS, list_measurements
from storage.runs import Run, State, get_run, list_runs
from storage.studies import done_like

EARLIER_RUNS = 5
LOOKED_AT = 50

_known: dict[tuple[str, str], tuple[tuple[str, str], Pace | None]] = {}


def earlier_paces(db: Database, experiment: Experiment) -> list[Pace]:
    """Those of the newest finished runs of the same model, method and precision; at most EARLIER_RUNS."""
    paces: list[Pace] = []
    for run in list_runs(db, limit=LOOKED_AT, state=State.DONE.value, made_here=True):
        if run.model == experiment.model and (pace := _pace(db, run.id, experiment)):
            paces.append(pace)
        if len(paces) == EARLIER_RUNS:
            break
    return paces


def _pace(db: Database, run_id: str, experiment: Experiment) -> Pace | None:
    """The pace of a finished run, if it was trained in the same way. A finished run does not change."""
    run = get_run(db, run_id)
    key = (run_id, run.finished_at or "")
    if key not in _known:
        try:
            past = Experiment.from_record(run.experiment)
            guessed = estimate_experiment(past).guessed
        except ValueError:
            return None
        took = {row["stage"]: row["value"] for row in list_measurements(db, run_id, SECONDS)}
        if not took and run.started_at and run.finished_at:  # of before parts were measured
            started, finished = map(datetime.fromisoformat, (run.started_at, run.finished_at))
            took = {"all": (finished - started).total_seconds()}
        sound = run.attempt == 1 and guessed and sum(took.values()) > 0 and _did_all_of_it(db, run)
        _known[key] = ((past.tuning.method, past.precision), pace_of(guessed, took) if sound else None)
    way, pace = _known[key]
    return pace if way == (experiment.tuning.method, experiment.precision) else None


def _did_all_of_it(db: Database, run: Run) -> bool:
    """Whether no part of it was taken over from another run of its study, which takes no time."""
    if not run.study or not run.cell:
        return True
    return done_like(db, run.study, "begins", run.cell["begins"])[:1] == [run.id]
