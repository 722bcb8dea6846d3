"""In which order runs start, and what is said of it: the runs of several people take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from app.shared.around import around
from app.shared.lab import Lab
from storage import accounts
from storage.acting import Actor, NotAllowed, Role, acting_as
from storage.database import open_database
from storage.deletion import delete_run
from storage.migrations import migrations
from storage.processes import ProcessName
from storage.run_queue import expected_order, move_first, set_priority
from storage.runs import State, add_run, claim_run, finish_run, get_run, retry_run, set_progress
from storage.workers import beat, remove_worker

SECONDS = 30.0


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path)) as opened:
        yield opened


class People:
    """Accounts of a lab that start runs."""

    def __init__(self, db: Database) -> None:
        self.db, self.actors = db, dict[str, Actor]()

    def of(self, name: str, role: Role = Role.RUNNER) -> Actor:
        if name not in self.actors:
            self.actors[name] = accounts.add_user(self.db, name, "x", role).actor
        return self.actors[name]

    def start(self, name: str) -> str:
        with acting_as(self.of(name) if name else None):
            return add_run(self.db, name=name or "nobody", experiment={}, model="m", seed=0).id


def carried_out(db: Database, tick: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every run that waits, in the order in which one worker takes them."""
    monkeypatch.setattr("storage.runs.now", lambda: f"2026-01-01T00:00:{next(tick):06}Z")
    order = []
    while run := claim_run(db, "worker", SECONDS):
        order.append(run.id)
        finish_run(db, run.id, run.attempt, State.DONE)
    return order


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["ada", "bo", "cy", ""]), max_size=12), st.data())
def test_runs_start_in_the_order_that_was_told(starts: list[str], data: st.DataObject) -> None:
    with closing(Database(memory=True)) as db, pytest.MonkeyPatch.context() as patched:
        migrations.apply(db)
        db.conn.execute("pragma foreign_keys = on")
        people, tick = People(db), count(1)
        half = data.draw(st.integers(0, len(starts)))
        for name in starts[:half]:
            people.start(name)
        carried_out(db, tick, patched)
        ids = [people.start(name) for name in starts[half:]]
        for run in data.draw(st.lists(st.sampled_from(ids), max_size=3)) if ids else []:
            set_priority(db, run, data.draw(st.sampled_from([-1, 0, 1])))
        told = [one.run for one in expected_order(db)]
        assert sorted(told) == sorted(ids)
        assert carried_out(db, tick, patched) == told


def test_people_take_turns_and_keep_their_own_order(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    people = People(db)
    mine = [people.start("ada") for _ in range(3)]
    others = [people.start("bo") for _ in range(2)]
    assert carried_out(db, count(), monkeypatch) == [mine[0], others[0], mine[1], others[1], mine[2]]


def test_what_is_taken_up_again_or_was_deleted_counts_as_a_turn(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    people, tick = People(db), count()
    mine = [people.start("ada") for _ in range(4)]
    carried_out(db, tick, monkeypatch)
    people.start("bo")
    carried_out(db, tick, monkeypatch)
    for run in mine[:3]:
        retry_run(db, run)
    others = [people.start("bo") for _ in range(3)]
    expected = [mine[0], others[0], mine[1], others[1], mine[2], others[2]]
    assert [one.run for one in expected_order(db)] == expected
    assert carried_out(db, tick, monkeypatch) == expected
    later = people.start("ada")
    carried_out(db, tick, monkeypatch)
    for run in (*mine, later):
        delete_run(db, run)
    mine, others = [people.start("ada")], [people.start("bo")]
    assert [one.run for one in expected_order(db)] == carried_out(db, tick, monkeypatch) == [*others, *mine]


def test_of_two_workers_the_second_serves_who_has_nothing_at_work(db: Database) -> None:
    people = People(db)
    first, _, other = people.start("ada"), people.start("ada"), people.start("bo")
    for worker, expected in (("one", first), ("two", other)):
        assert (claimed := claim_run(db, worker, SECONDS)) and claimed.id == expected


def test_what_had_begun_goes_on_first(db: Database) -> None:
    people = People(db)
    begun = people.start("ada")
    assert claim_run(db, "gone", -1.0)
    people.start("bo")
    assert (again := claim_run(db, "here", SECONDS)) and again.id == begun


def test_a_run_is_put_first_of_its_owners_own(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    people = People(db)
    mine, others = [people.start("ada") for _ in range(3)], [people.start("bo") for _ in range(2)]
    with acting_as(people.of("bo")), pytest.raises(NotAllowed, match="somebody else’s"):
        move_first(db, mine[2])
    with acting_as(people.of("ada")):
        move_first(db, mine[2])
        move_first(db, mine[1])
    assert [one.run for one in expected_order(db)] == [mine[1], others[0], mine[2], others[1], mine[0]]
    assert carried_out(db, count(), monkeypatch) == [mine[1], others[0], mine[2], others[1], mine[0]]
    with pytest.raises(ValueError, match="does not wait any more"):
        move_first(db, mine[0])
    with pytest.raises(KeyError):
        move_first(db, "none")


def test_only_admins_put_a_run_before_everybody(db: Database) -> None:
    people = People(db)
    first, second = people.start("ada"), people.start("bo")
    with acting_as(people.of("bo")), pytest.raises(NotAllowed, match="only an admin"):
        set_priority(db, second, 1)
    with acting_as(people.of("root", Role.ADMIN)):
        set_priority(db, second, 1)
        with pytest.raises(ValueError, match="one of 1, 0 and -1"):
            set_priority(db, second, 2)
    assert [one.run for one in expected_order(db)] == [second, first]
    assert get_run(db, second).priority == 1


def test_why_a_run_waits_and_about_how_long(db: Database, tmp_path: Path) -> None:
    people, lab = People(db), Lab(tmp_path)

    def told() -> list[str]:
        return list(around(lab).words.values())

    runs = [people.start("ada") for _ in range(3)]
    assert told() == ["Waits for a worker: none is running"] * 3
    beat(db, worker="w", process=ProcessName.of(), run=None)
    assert told() == ["Waits: it is the next", "Waits: 1 run before it", "Waits: 2 runs before it"], "nobody knows"
    one = claim_run(db, "w", SECONDS)
    assert one and one.id == runs[0]
    set_progress(db, one.id, one.attempt, {"seconds_left": 40})
    assert told() == ["Waits: it is the next, about 40 s", "Waits: 1 run before it"], "how long that takes is not known"
    finish_run(db, one.id, one.attempt, State.DONE)
    db.table("runs").update(one.id, {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:02:00Z"})
    two = claim_run(db, "w", SECONDS)
    assert two
    set_progress(db, two.id, two.attempt, {"seconds_left": 60})
    people.start("bo")
    assert told() == ["Waits: it is the next, about 1 min", "Waits: 1 run before it, about 3 min"]
    db.table("runs").update(runs[2], {"needs": two.id})
    assert told()[1] == f"Waits for run {two.id}, whose model it goes on from"
    remove_worker(db, "w")
