"""Put a study into the queue, and make it wider: what was planned before is neither run again nor changed."""

from __future__ import annotations

from sqlite_utils import Database

from engine.checks import refuse
from engine.evaluation.sayable import refuse_known
from engine.experiment import Experiment
from engine.models.files import experiment_problems, located
from engine.studies.plan import PlannedRun, planned_runs
from engine.studies.presets import STUDIES
from engine.studies.study import Study
from storage.database import write
from storage.runs import State, get_run
from storage.studies import (
    KnownRun,
    NewRun,
    add_study,
    get_study,
    list_studies,
    list_study_runs,
    replan_study,
    study_counts,
)


def queue_study(db: Database, study: Study) -> str:
    """Queue every run of a study; returns its id.

    Raises ValueError when a combination is no experiment, or its model is not there or cannot say what is asked.
    """
    runs = [_new(planned) for planned in _checked(study)]
    return add_study(db, name=study.name, plan=study.model_dump(mode="json"), runs=runs)


def queue_once(db: Database, study: Study) -> str:
    """Queue a study, or go on with the same one where it is under way; returns its id. Raises ValueError as
    `queue_study`."""
    plan = study.model_dump(mode="json")
    # Two clicks, or two people, want it once. Another study may have its name.
    for stored in list_studies(db, name=study.name):
        if stored.plan == plan and {State.QUEUED, State.RUNNING} & study_counts(db, stored.id).keys():
            return stored.id
    return queue_study(db, study)


def queue_shipped(db: Database, name: str) -> str:
    """`queue_once` a study that comes with the lab. Raises ValueError as that does, and where none is called so."""
    if name not in STUDIES.names():
        raise ValueError("There is no such study.")
    return queue_once(db, STUDIES.load(name))


def widen_study(db: Database, study_id: str, wider: Study) -> int:
    """Queue what a wider study has and the one that is there has not; returns how many runs that is.

    A depth more is a run more, of that depth alone. Raises KeyError when there is no such study, ValueError as
    `queue_study`, and when the wider one leaves out what is there.
    """
    planned = {run.differs: run for run in _checked(wider)}
    with write(db):
        get_study(db, study_id)
        there: dict[str, list[tuple[str, PlannedRun]]] = {}
        for stored in list_study_runs(db, study_id):
            run = PlannedRun(Experiment.from_record(get_run(db, stored.run).experiment), stored.at)
            there.setdefault(run.differs, []).append((stored.run, run))
        lost = sum(len(runs) for differs, runs in there.items() if differs not in planned)
        if lost:
            these = "run" if lost == 1 else "runs"
            raise ValueError(
                f"{lost} {these} would no longer be part of it: leave all that is planned in, and add to it"
            )
        order: list[KnownRun | NewRun] = []
        for differs, run in planned.items():
            before = there.get(differs, [])
            order += [KnownRun(run_id, run.at, other.experiment.stage1.saved_epochs) for run_id, other in before]
            looked_at = {epoch for _, other in before for epoch in other.experiment.branch_epochs}
            if missing := set(run.experiment.branch_epochs) - looked_at:
                order.append(_new(run.at_depths(missing) if before else run))
        return replan_study(db, study_id, wider.model_dump(mode="json"), order)


def _checked(study: Study) -> list[PlannedRun]:
    runs = []
    tried: set[str] = set()
    for planned in planned_runs(study):
        run = PlannedRun(located(planned.experiment), planned.at)
        if run.memorises not in tried:
            tried.add(run.memorises)
            refuse(experiment_problems(run.experiment))
            refuse_known(run.experiment)
        runs.append(run)
    return runs


def _new(planned: PlannedRun) -> NewRun:
    experiment = planned.experiment
    return NewRun(
        experiment.name, experiment.model_dump(mode="json"), planned.at, planned.memorises, planned.begins,
        experiment.stage1.saved_epochs,
    )  # fmt: skip
