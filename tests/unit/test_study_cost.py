"""What a study costs: what its runs share is counted once."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from engine.costs import KINDS
from engine.estimate import estimate_experiment
from engine.execution.paces import earlier_paces
from engine.execution.studies.queue import queue_study
from engine.studies.cost import cost_by_seed, study_cost
from engine.studies.plan import planned_runs
from engine.studies.study import DEPTH, Study
from storage.database import open_database
from storage.measurements import SECONDS, add_measurements
from storage.runs import State
from storage.studies import list_study_runs

COUNTS = ("runs", "memorised", "generalised", "bases")
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


def test_earlier_runs_correct_the_time_but_not_those_that_took_a_part_over(tmp_path: Path) -> None:
    study = Study.from_data({"experiment": "quick", "axes": {"stage2.facts": [10, 50]}})
    with closing(open_database(tmp_path)) as db:
        rough = study_cost(planned_runs(study), paces=partial(earlier_paces, db))
        assert rough.seconds is not None and not rough.from_earlier_runs
        first, second = (run.run for run in list_study_runs(db, queue_study(db, study)))
        guessed = estimate_experiment(planned_runs(study)[0].experiment).guessed
        for place, (run, times) in enumerate(((first, 3.0), (second, 0.01))):
            took: dict[str, float] = {}
            for part, seconds in guessed.items():
                took[KINDS[part]] = took.get(KINDS[part], 0.0) + times * seconds
            rows = [{"stage": kind, "step": 0, "epoch": 0.0, "series": SECONDS, "value": s} for kind, s in took.items()]
            add_measurements(db, run, rows)
            ended = {"state": State.DONE.value, "attempt": 1, "finished_at": f"2026-03-01T10:0{place}:00.000Z"}
            db.table("runs").update(run, ended)
        known = study_cost(planned_runs(study), paces=partial(earlier_paces, db))
    assert known.seconds is not None and known.from_earlier_runs
    assert known.seconds[1] == pytest.approx(3 * rough.seconds[1], rel=0.05)
    assert known.seconds[2] / known.seconds[0] < rough.seconds[2] / rough.seconds[0]


@pytest.mark.parametrize("keep", ["all", "first seed", "none"])
def test_many_seeds_are_planned_as_one(keep: str) -> None:
    study = Study.from_data({"experiment": "quick", "keep": keep, "axes": AXES | {"seed": [3, 4, 5]}})
    whole, by_seed = study_cost(planned_runs(study), study.keeps), cost_by_seed(study)
    assert by_seed is not None and whole.seconds is not None and whole.disk is not None
    assert by_seed.seconds == pytest.approx(whole.seconds) and by_seed.disk == pytest.approx(whole.disk)
    assert [getattr(by_seed, name) for name in COUNTS] == [getattr(whole, name) for name in COUNTS]
    left = Study.from_data(study.model_dump() | {"leave_out": [{"seed": 3, "stage2.facts": 10}]})
    assert cost_by_seed(left) is None
