"""What a study will cost, told before it starts: what its runs share is counted once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.costs import Pace
from engine.estimate import Estimate, estimate_experiment
from engine.evaluation.questions import count_questions
from engine.experiment import Experiment
from engine.studies.plan import PlannedRun, planned_runs
from engine.studies.study import SEED, Study


@dataclass(frozen=True)
class StudyCost:
    """Counts for a study: `memorised`: trainings of stage 1, `generalised`: of stage 2, `bases`: times a base is asked.

    seconds: (at best, most likely, at worst); disk: bytes at most. None where the size of a model is unknown.
    from_earlier_runs: whether earlier runs corrected each of the times.
    """

    runs: int
    memorised: int
    generalised: int
    bases: int
    seconds: tuple[float, float, float] | None
    disk: int | None
    from_earlier_runs: bool


def cost_by_seed(
    study: Study, paces: Callable[[Experiment], Sequence[Pace]] = lambda experiment: ()
) -> StudyCost | None:  # fmt: skip
    """What a study of many seeds costs, planned for the first one alone: seeds differ in names only, and share nothing.

    None where it has no several seeds, or leaves out some of one. Raises ValueError as `planned_runs`.
    """
    seeds = study.axes.get(SEED, ())
    if len(seeds) < 2 or any(SEED in combination for combination in study.leave_out):
        return None
    planned = planned_runs(study.model_copy(update={"axes": {**study.axes, SEED: seeds[:1]}}))
    of_one = study_cost(planned, paces=paces)
    passing = study_cost(planned, lambda seed: False, paces)
    count, kept = len(seeds), sum(map(study.keeps, seeds))
    disk = None
    if of_one.disk is not None and passing.disk is not None:
        disk = kept * of_one.disk + (passing.disk if kept < count else 0)
    seconds = of_one.seconds
    return StudyCost(
        runs=count * of_one.runs,
        memorised=count * of_one.memorised,
        generalised=count * of_one.generalised,
        bases=count * of_one.bases,
        seconds=seconds and (count * seconds[0], count * seconds[1], count * seconds[2]),
        disk=disk,
        from_earlier_runs=of_one.from_earlier_runs,
    )


def study_cost(
    planned: Sequence[PlannedRun], keeps: Callable[[int], bool] = lambda seed: True,
    paces: Callable[[Experiment], Sequence[Pace]] = lambda experiment: (),
) -> StudyCost:  # fmt: skip
    """What the runs of a study cost together.

    keeps: whether the models of a seed stay (`Study.keeps`). paces: of an experiment, those of earlier runs like it.
    """
    known: dict[str, Estimate] = {}  # seeds differ in names alone
    seconds, disk, passing = [0.0, 0.0, 0.0], 0, 0
    first: set[str] = set()
    unknown = False
    for run in planned:
        key = json.dumps({path: value for path, value in run.at.items() if path != SEED}, sort_keys=True)
        if key not in known:
            known[key] = estimate_experiment(run.experiment, paces=paces(run.experiment))
        estimate, shares = known[key], run.memorises in first
        first.add(run.memorises)
        if estimate.seconds is None or estimate.disk is None:
            unknown = True
            continue
        part = _left(run.experiment, estimate) if shares else 1.0
        seconds = [total + part * each for total, each in zip(seconds, estimate.seconds, strict=True)]
        kept, made = len(run.experiment.checkpoints) - 1, len(run.experiment.branch_epochs)
        room = round(estimate.disk * (made / kept if shares else 1.0))
        if keeps(run.experiment.seed):
            disk += room
        else:
            passing = max(passing, room + (estimate.disk if shares else 0))
    return StudyCost(
        runs=len(planned),
        memorised=len({run.memorises for run in planned if run.experiment.stage1.epochs}),
        generalised=sum(len(run.experiment.branch_epochs) for run in planned),
        bases=len({run.begins for run in planned}),
        seconds=None if unknown else (seconds[0], seconds[1], seconds[2]),
        disk=None if unknown else disk + passing,
        from_earlier_runs=all(estimate.from_earlier_runs for estimate in known.values()),
    )


def _left(experiment: Experiment, estimate: Estimate) -> float:
    """Which share of a run's time is left where stage 1 and what was asked before stage 2 are another run's."""
    asked = {name: count_questions(experiment, name) for name in experiment.checkpoints}
    after = sum(count for name, count in asked.items() if name.startswith("generalised"))
    share = after / max(1, sum(asked.values()))
    left = {"stage 1": 0.0, "questions": share, "multiple choice": share}
    return sum(s * left.get(part, 1.0) for part, s in estimate.parts.items()) / max(1e-9, sum(estimate.parts.values()))
