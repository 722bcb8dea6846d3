"""What others hang on is not deleted; the refusal names it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from app.server.first_start import bring_recorded_attacks, queue_first_run
from app.shared.lab import Lab
from storage import asking_queue
from storage.attacks import delete_attack, get_attack, list_attacks, list_cells, retry_attack, stop_attack
from storage.database import open_database
from storage.deletion import delete_run
from storage.runs import State, add_run, claim_run, finish_run, get_run, request_stop, retry_run


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab as its first start leaves it: a run, an attack on it, and a recorded attack."""
    made = Lab(tmp_path_factory.mktemp("home"))
    assert queue_first_run(made)
    bring_recorded_attacks(made)
    return made


def test_a_run_that_an_attack_began_from_stays_until_the_attack_is_gone(lab: Lab) -> None:
    (story,) = [a for a in list_attacks(lab.db) if not a.recorded]
    base, cells = list_cells(lab.db, story.id)[0].needs, list_cells(lab.db, story.id)
    (lab.folder(base) / "checkpoints").mkdir(parents=True)
    request_stop(lab.db, base)
    for _ in ("while cells wait", "when they have ended"):
        with pytest.raises(ValueError, match=rf"‘{story.name}’ \({story.id}, with {len(cells)} models") as refused:
            lab.delete(base)
        assert "Attack page" in str(refused.value) and lab.folder(base).is_dir()
        stop_attack(lab.db, story.id)
    assert get_run(lab.db, base) and len(list_cells(lab.db, story.id)) == len(cells)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_cell_goes_only_with_its_attack(lab: Lab, recorded: bool) -> None:
    attack = next(a for a in list_attacks(lab.db) if bool(a.recorded) is recorded)
    stop_attack(lab.db, attack.id)
    cell = list_cells(lab.db, attack.id)[0].run
    with pytest.raises(ValueError, match=rf"a part of the attack ‘{attack.name}’ \({attack.id}\)"):
        lab.delete(cell)
    assert get_run(lab.db, cell).ended


def test_what_was_recorded_elsewhere_is_not_measured_again(lab: Lab) -> None:
    attack = next(a for a in list_attacks(lab.db) if a.recorded)
    retry_attack(lab.db, attack.id)
    cells = list_cells(lab.db, attack.id)
    assert retry_run(lab.db, cells[0].run) is State.DONE
    assert {cell.state for cell in list_cells(lab.db, attack.id)} == {State.DONE}


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path)


def test_a_run_that_runs_stays(db: Database) -> None:
    run = add_run(db, name="a run", experiment={}, model="embedded", seed=1)
    claimed = claim_run(db, "w", 60)
    assert claimed is not None
    for _ in ("running", "stopping"):
        with pytest.raises(ValueError, match="cancel it first"):
            delete_run(db, run.id)
        request_stop(db, run.id)
    finish_run(db, run.id, claimed.attempt, State.CANCELLED)
    delete_run(db, run.id)


def test_a_run_that_is_asked_stays_until_it_has_answered(db: Database) -> None:
    run = add_run(db, name="a run", experiment={}, model="embedded", seed=1)
    request_stop(db, run.id)
    db.execute("pragma foreign_keys = off")
    asking_queue.add_column(db, "asking", run.id, "a run", "base")
    for _ in ("waits", "is asked"):
        with pytest.raises(ValueError, match="is being asked"):
            delete_run(db, run.id)
        asking_queue.claim_column(db, 60)
    asking_queue.fail_column(db, "asking", f"{run.id}/base", "A sentence.")
    delete_run(db, run.id)


def test_an_attack_that_runs_stays(lab: Lab) -> None:
    (story,) = [a for a in list_attacks(lab.db) if not a.recorded]
    retry_attack(lab.db, story.id)
    with pytest.raises(ValueError, match="stop it first"):
        lab.delete_attack(story.id)
    assert get_attack(lab.db, story.id)
    stop_attack(lab.db, story.id)
    delete_attack(lab.db, story.id)


@pytest.mark.parametrize("state", [State.QUEUED, State.DONE])
def test_a_run_stays_while_another_begins_with_its_model(tmp_path: Path, state: State) -> None:
    home = tmp_path / "home"
    with closing(open_database(home)) as db:
        first = add_run(db, name="first", experiment={}, model="embedded", seed=1)
        model = str(home / "runs" / first.id / "checkpoints/generalised@3")
        further = add_run(db, name="facts that come later", experiment={}, model=model, seed=2)
        assert claim_run(db, "worker", 30, first.id)
        finish_run(db, first.id, 1, State.DONE)
        if state is State.DONE:
            assert claim_run(db, "worker", 30, further.id)
            finish_run(db, further.id, 1, state)
        with pytest.raises(ValueError, match=rf"begins with: ‘facts that come later’ \({further.id}\)"):
            delete_run(db, first.id)
        delete_run(db, further.id)
        delete_run(db, first.id)
