"""What a study costs: what its runs share is counted once."""

from __future__ import annotations

import pytest

from engine.estimate import estimate_experiment
from engine.studies.cost import study_cost
from engine.studies.plan import planned_runs
from engine.studies.study import DEPTH, Study

AXES = {DEPTH: [3, 20], "stage2.facts": [10, 50], "stage2.epochs": [1, 8]}


def test_what_is_shared_is_counted_once() -> None:
    planned = planned_runs(Study.from_data({"experiment": "quick", "axes": AXES}))
    cost, each = study_cost(planned), [estimate_experiment(run.experiment) for run in planned]
    assert (cost.runs, cost.memorised, cost.generalised, cost.bases) == (4, 1, 8, 1)
    assert cost.seconds is not None and cost.disk is not None
    apart, disk = sum(e.seconds[1] for e in each if e.seconds), sum(e.disk for e in each if e.disk)
    longest = max(e.seconds[1] for e in each if e.seconds)
    assert longest < cost.seconds[1] < 0.8 * apart and cost.seconds[0] < cost.seconds[1] < cost.seconds[2]
    assert cost.disk < disk


def test_models_that_do_not_stay_need_room_once() -> None:
    def disk(keep: str) -> int:
        study = Study.from_data({"experiment": "quick", "keep": keep, "axes": AXES | {"seed": [0, 1, 2]}})
        room = study_cost(planned_runs(study), study.keeps).disk
        assert room is not None
        return room

    assert disk("none") < disk("first seed") < disk("all")


def test_seeds_cost_the_same_each() -> None:
    one, three = (
        study_cost(planned_runs(Study.from_data({"experiment": "quick", "axes": AXES | {"seed": seeds}})))
        for seeds in ([0], [0, 1, 2])
    )
    assert one.seconds is not None and three.seconds is not None
    assert three.seconds[1] == pytest.approx(3 * one.seconds[1]) and three.memorised == three.bases == 3


def test_a_model_of_unknown_size_is_said_to_be_unknown() -> None:
    cost = study_cost(planned_runs(Study.from_data({"experiment": "quick", "axes": {"model": ["nobody/nothing"]}})))
    assert cost.seconds is None and cost.disk is None and cost.runs == 1
