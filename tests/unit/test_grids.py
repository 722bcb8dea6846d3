"""What is carried out next of a study's or an attack's runs; plans that are made wider keep where each run stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from storage.attacks import add_attack, cells_like, list_cells, replan_attack
from storage.database import open_database
from storage.grids import ATTACK, STUDY, waiting_runs
from storage.runs import add_run, request_stop
from storage.studies import KnownRun, NewRun, add_study, list_study_runs, replan_study

EXPERIMENT: dict[str, Any] = {"model": "m", "seed": 0}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path)) as opened:
        yield opened


def new(memorises: str, **at: Any) -> NewRun:
    return NewRun("cell", EXPERIMENT, at, memorises, "b")


def cell(seed: int, needs: str, reading: str = "bully") -> tuple[dict[str, Any], str, dict[str, Any]]:
    return {"seed": seed, "kind": "attack", "reading": reading}, needs, EXPERIMENT


def test_what_a_grid_waits_for_comes_before_its_own_runs(db: Database) -> None:
    first, other = (add_run(db, name="base", experiment=EXPERIMENT, model="m", seed=s).id for s in (0, 1))
    attack = add_attack(db, name="story", experiment={}, cells=[cell(0, first), cell(1, first)])
    cells = [c.run for c in list_cells(db, attack)]
    assert waiting_runs(db, ATTACK, attack) == [first, *cells] and other not in cells
    request_stop(db, first)
    request_stop(db, cells[0])
    assert waiting_runs(db, ATTACK, attack) == cells[1:]


def test_a_study_waits_for_runs_of_its_own_in_the_order_of_its_plan(db: Database) -> None:
    study = add_study(db, name="grid", plan={}, runs=[new("a", k=1), new("a", k=2), new("b", k=3)])
    first, second, third = list_study_runs(db, study)
    assert (first.needs, second.needs, third.needs) == (None, first.run, None)
    assert waiting_runs(db, STUDY, study) == [first.run, second.run, third.run]


def test_a_wider_study_says_anew_where_runs_stand_and_shares_what_is_there(db: Database) -> None:
    study = add_study(db, name="grid", plan={}, runs=[new("a", k=1)])
    (first,) = list_study_runs(db, study)
    there = KnownRun(first.run, {"k": 1, "template": None})
    assert replan_study(db, study, {}, [new("a", k=2, template=None), there]) == 1
    added, kept = list_study_runs(db, study)
    assert kept.run == first.run and kept.at == {"k": 1, "template": None} and added.needs == first.run


def test_cells_stay_as_they_are_when_an_attack_is_made_wider(db: Database) -> None:
    """Their text is what those that do the same are found by, in letters of any alphabet."""
    attack = add_attack(db, name="story", experiment={}, cells=[cell(0, "gone", "erpreßt 脅す")])
    (first,) = list_cells(db, attack)
    assert replan_attack(db, attack, {}, [cell(1, "gone", "erpreßt 脅す"), first.run]) == 1
    assert [c.run for c in list_cells(db, attack)][1] == first.run
    db.execute("update runs set state = 'done'")
    assert [c.run for c in cells_like(db, first.cell)] == [first.run]
