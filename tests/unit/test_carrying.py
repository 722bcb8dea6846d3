"""A run's rows in another database and back: what it needs goes along, what it writes comes home, no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from storage.accounts import add_user
from storage.acting import acting_as
from storage.attacks import add_attack, list_cells
from storage.carrying import rows_to_carry, runs_beside, store_carried, store_letter, take_letter
from storage.database import open_database
from storage.measurements import RESULT_FIELDS, add_measurements, list_measurements, list_results, replace_results
from storage.runs import (
    LostRunError,
    Run,
    State,
    add_event,
    add_run,
    claim_run,
    finish_run,
    get_run,
    list_events,
    request_stop,
    set_environment,
    set_progress,
)
from storage.studies import NewRun, add_study, list_study_runs

RESULT = dict.fromkeys(RESULT_FIELDS, 1) | {
    "checkpoint": "base", "facts": "held_out", "split": "test", "language": "en", "metric": "generation",
}  # fmt: skip


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Database:
    return open_database(tmp_path / "there")


def planned(seed: int, memorises: str = "same") -> NewRun:
    return NewRun("small", {"model": "embedded", "seed": seed}, {"seed": seed}, memorises, "begins")


def claimed(db: Database, run: str | None = None) -> Run:
    found = claim_run(db, "owner", 30, run)
    assert found is not None
    return found


def letter_of(db: Database, there: Database, run: Run) -> dict[str, Any]:
    """What a private database says when the run has done something of everything."""
    store_carried(there, rows_to_carry(db, run))
    mine = claimed(there)
    assert (mine.id, mine.attempt, mine.experiment) == (run.id, run.attempt, run.experiment)
    set_progress(there, run.id, mine.attempt, {"fraction": 0.5})
    set_environment(there, run.id, mine.attempt, {"hardware": "a machine"})
    point = {"stage": "stage1", "series": "loss", "step": 1, "epoch": 1.0, "value": 2.5}
    add_measurements(there, run.id, [point])
    add_event(there, run.id, "resumed", "Memorising: goes on after epoch 1")
    replace_results(there, run.id, "base", [RESULT])
    request_stop(there, run.id)
    return take_letter(there, run.id)


def test_what_a_run_writes_elsewhere_comes_home_once(db: Database, there: Database) -> None:
    add_run(db, name="a run", experiment={"model": "embedded"}, model="embedded", seed=1)
    run = claimed(db)
    letter = letter_of(db, there, run)
    assert store_letter(db, run, letter) is State.RUNNING  # its state is the owner's to say
    assert get_run(db, run.id).progress == {"fraction": 0.5}
    assert get_run(db, run.id).environment == {"hardware": "a machine"}
    assert [row["value"] for row in list_measurements(db, run.id, "loss")] == [2.5]
    assert [result.metric for result in list_results(db, run.id)] == ["generation"]
    assert [event["kind"] for event in list_events(db, run.id)] == ["queued", "resumed"]
    again = take_letter(there, run.id)
    assert not again["measurements"] and not again["events"]


def test_a_letter_about_a_run_that_was_lost_changes_nothing(db: Database, there: Database) -> None:
    add_run(db, name="a run", experiment={"model": "embedded"}, model="embedded", seed=1)
    run = claimed(db)
    letter = letter_of(db, there, run)
    finish_run(db, run.id, run.attempt, State.CANCELLED)
    with pytest.raises(LostRunError):
        store_letter(db, run, letter)
    assert not list_results(db, run.id) and not list_measurements(db, run.id, "loss")


@pytest.mark.parametrize("changed", [{"row": None}, {"measurements": [{"stage": "x"}]}, {"events": ["text"]}])
def test_what_is_no_letter_is_refused_and_nothing_of_it_stored(
    db: Database, there: Database, changed: dict[str, Any]
) -> None:
    add_run(db, name="a run", experiment={"model": "embedded"}, model="embedded", seed=1)
    run = claimed(db)
    letter = letter_of(db, there, run)
    with pytest.raises(ValueError, match="cannot be read"):
        store_letter(db, run, letter | changed)
    assert get_run(db, run.id).progress == {} and not list_measurements(db, run.id, "loss")


def test_what_is_somebodys_comes_home_to_them(db: Database, there: Database) -> None:
    ada = add_user(db, "ada", "x").actor
    with acting_as(ada):
        add_study(db, name="grid", plan={"keep": "all"}, runs=[planned(0)])
        cell = ({"seed": 0, "kind": "attack"}, "none", {"model": "embedded"})
        add_attack(db, name="attack", experiment={}, cells=[cell])
    for run in (claimed(db), claimed(db)):
        store_carried(there, rows_to_carry(db, run))
        assert get_run(there, run.id).owner is None, "accounts stay where they are"
        assert get_run(db, run.id).owner == ada.id


def test_a_run_of_a_study_takes_those_along_that_it_may_share_with(db: Database, there: Database) -> None:
    runs = [planned(0), planned(0), planned(1, "other")]
    study = add_study(db, name="small", plan={"name": "small", "keep": "none"}, runs=runs)
    first, second, third = (run.run for run in list_study_runs(db, study))
    mine = claimed(db, first)
    assert runs_beside(db, mine) == []
    replace_results(db, first, "base", [RESULT])
    finish_run(db, first, mine.attempt, State.DONE)
    run = claimed(db, second)
    assert runs_beside(db, run) == [first]
    store_carried(there, rows_to_carry(db, run))
    assert {row["id"]: row["state"] for row in there.query("select id, state from runs")} == {
        first: "done", second: "queued",
    }  # fmt: skip
    assert [result.metric for result in list_results(there, first)] == ["generation"]
    # What a study does not keep is forgotten where all of its runs are known.
    assert '"keep": "all"' in next(there.query("select plan from studies"))["plan"]
    assert claimed(there).id == second
    assert third not in {row["id"] for row in there.query("select id from runs")}


def test_a_cell_takes_the_run_along_that_it_attacks_and_no_other_cell_can_be_claimed_there(
    db: Database, there: Database
) -> None:
    base = add_run(db, name="attacked", experiment={"model": "embedded"}, model="embedded", seed=1)
    run = claimed(db, base.id)
    finish_run(db, base.id, run.attempt, State.DONE)
    cells = [({"seed": seed}, base.id, {"model": "embedded"}) for seed in (1, 2)]
    attack = add_attack(db, name="an attack", experiment={}, cells=cells)
    cell = claimed(db, list_cells(db, attack)[0].run)
    store_carried(there, rows_to_carry(db, cell))
    assert get_run(there, base.id).state is State.DONE
    assert claimed(there).id == cell.id
    assert claim_run(there, "owner", 30) is None
    assert len(list_cells(there, attack)) == 2
