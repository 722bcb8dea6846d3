"""Put a study into the queue, and make it wider: what was planned before is neither run again nor changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from sqlite_utils import Database

from engine.checks import refuse
from engine.evaluation.sayable import refuse_known
from engine.experiment import Experiment
from engine.models.files import experiment_problems, located
from engine.studies.alike import as_meant
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

UNDER_WAY = {State.QUEUED, State.RUNNING, State.STOPPING}
LEAVE_IN = "leave all that is planned in, and add to it"
EMPTY: Mapping[str, Any] = MappingProxyType({})


def queue_study(db: Database, study: Study) -> str:
    """Queue every run of a study; returns its id.

    Raises ValueError when a combination is no experiment, or its model is not there or cannot say what is asked.
    """
    return _add(db, study, _checked(study))


def _add(db: Database, study: Study, runs: Iterable[PlannedRun]) -> str:
    return add_study(db, name=study.name, plan=study.model_dump(mode="json"), runs=list(map(_new, runs)))


def queue_once(db: Database, study: Study) -> str:
    """Queue a study, or go on with the same one where it is under way; returns its id. Raises ValueError as
    `queue_study`."""
    plan, runs = study.model_dump(mode="json"), _checked(study)
    with write(db):  # two clicks, or two people, want it once
        for stored in list_studies(db, name=study.name):
            # Another study may have its name.
            if as_meant(stored.plan) == as_meant(plan) and UNDER_WAY & study_counts(db, stored.id).keys():
                return stored.id
        return _add(db, study, runs)


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
    planned, read = _checked(wider), _stored(db, study_id)
    with write(db):  # for which others wait: what was read before is not read again
        order = _widened(planned, _stored(db, study_id, read))
        runs = [run if isinstance(run, KnownRun) else _new(run) for run in order]
        return replan_study(db, study_id, wider.model_dump(mode="json"), runs)


def new_runs(db: Database, study_id: str, wider: Study) -> list[PlannedRun]:
    """What `widen_study` would queue. Raises as that does."""
    order = _widened(_checked(wider), _stored(db, study_id))
    return [run for run in order if isinstance(run, PlannedRun)]


def _stored(db: Database, study_id: str, read: Mapping[str, PlannedRun] = EMPTY) -> dict[str, PlannedRun]:
    """The runs of a study by their ids; read: those that were read before. Raises KeyError."""
    get_study(db, study_id)
    return {
        stored.run: read.get(stored.run)
        or PlannedRun(Experiment.from_record(get_run(db, stored.run).experiment), stored.at)
        for stored in list_study_runs(db, study_id)
    }


def _widened(planned: Iterable[PlannedRun], stored: Mapping[str, PlannedRun]) -> list[KnownRun | PlannedRun]:
    """The runs of a wider study in their order, those that are there and new ones. Raises ValueError."""
    wider = {run.differs: run for run in planned}
    there: dict[str, list[tuple[str, PlannedRun]]] = {}
    for run_id, run in stored.items():
        there.setdefault(run.differs, []).append((run_id, run))
    _refuse_lost([run for run in stored.values() if run.differs not in wider], list(wider.values()))
    order: list[KnownRun | PlannedRun] = []
    for differs, run in wider.items():
        before = there.get(differs, [])
        order += [KnownRun(run_id, run.at, other.experiment.stage1.saved_epochs) for run_id, other in before]
        looked_at = {epoch for _, other in before for epoch in other.experiment.branch_epochs}
        if lost := sorted(looked_at - set(run.experiment.branch_epochs)):
            raise ValueError(f"epoch {', '.join(map(str, lost))} of stage 1 would no longer be part of it: {LEAVE_IN}")
        if missing := set(run.experiment.branch_epochs) - looked_at:
            order.append(run.at_depths(missing) if before else run)
    return order


def _refuse_lost(lost: list[PlannedRun], planned: list[PlannedRun]) -> None:
    if not lost:
        return
    was, now = ({run.experiment.stage1.epochs for run in runs} for runs in (lost, planned))
    if was.isdisjoint(now):
        epochs = ", ".join(map(str, sorted(now)))
        raise ValueError(
            f"a stage 1 of {epochs} epochs is another training than what is there, with a schedule of its own: "
            "start it as a study of its own"
        )
    these = "run" if len(lost) == 1 else "runs"
    raise ValueError(f"{len(lost)} {these} would no longer be part of it: {LEAVE_IN}")


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
