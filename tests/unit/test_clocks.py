"""Clocks are set: forward, back, by seconds and by years. What lives stays alive to the lab, and keeps its run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlite_utils import Database

from app.shared.lab import Lab
from engine.execution import worker
from engine.execution.worker import Registration
from storage import asking_queue, drafts, runs
from storage.database import open_database
from storage.devices import request_for_run, run_on_device
from storage.processes import ProcessName, process_space
from storage.workers import beat, list_workers

STEPS = [-400 * 86400.0, -3600.0, -2.0, 2.0, 90.0, 3600.0, 400 * 86400.0]
SetClock = Callable[[float], None]


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path)


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """As a process sees it that starts after the clock was set: the start of all processes moves along."""
    clock, started = time.time, psutil.Process.create_time

    def set_by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: clock() + seconds)
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: started(process) + seconds)

    return set_by


def a_run(db: Database) -> runs.Run:
    return runs.add_run(db, name="a run", experiment={}, model="embedded", seed=1)


@pytest.mark.parametrize("step", STEPS)
def test_no_worker_takes_the_run_of_a_living_one(
    db: Database, living: subprocess.Popen[bytes], set_clock: SetClock, step: float
) -> None:
    run, name = a_run(db), ProcessName.of(living.pid)
    beat(db, worker="first", process=name, run=run.id)
    assert runs.claim_run(db, "first", runs.LEASE_SECONDS) is not None
    assert request_for_run(db, "cuda", run.id, name)
    set_clock(step)
    second = Registration(db)
    for _ in range(2):
        second.release_dead_workers()
        second.beat(None, force=True)
        assert runs.claim_run(db, second.id, runs.LEASE_SECONDS) is None, "it was stolen"
    assert run_on_device(db, "cuda") == run.id
    assert runs.renew_lease(db, run.id, 1, runs.LEASE_SECONDS) == "running"
    living.kill()
    living.wait()
    second.release_dead_workers()
    claimed = runs.claim_run(db, second.id, runs.LEASE_SECONDS)
    assert claimed is not None and claimed.attempt == 2, "a dead worker's run waits for ever"
    assert run_on_device(db, "cuda") is None


@pytest.mark.parametrize("step", STEPS)
def test_the_page_sees_the_living_and_no_other(
    tmp_path: Path, living: subprocess.Popen[bytes], set_clock: SetClock, step: float
) -> None:
    lab = Lab(tmp_path)
    beat(lab.db, worker="w", process=ProcessName.of(living.pid), run=None)
    set_clock(step)
    assert lab.worker_state() == "ready"
    living.kill()
    living.wait()
    assert lab.worker_state() == "absent"


def test_ids_mean_nothing_after_a_restart_and_in_another_container(living: subprocess.Popen[bytes]) -> None:
    name = ProcessName.of(living.pid)
    boot, _, container = process_space().partition(" ")
    restarted, elsewhere = replace(name, space=f"another {container}"), replace(name, space=f"{boot} pid:[1]")
    assert name.lives and name.certain and not name.replaced
    assert not restarted.lives and restarted.certain and not restarted.here
    assert not elsewhere.lives and not elsewhere.certain and not elsewhere.here
    assert replace(name, host="another").lives and not replace(name, host="another").certain
    assert not replace(name, started=name.started - 5).lives and replace(name, started=name.started - 5).replaced
    # A row of a lab of before this was known.
    assert replace(name, space="", started=psutil.Process(living.pid).create_time()).lives


def test_a_worker_elsewhere_is_given_up_after_a_silence_by_our_own_watch(
    db: Database, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock
) -> None:
    run, far = a_run(db), ProcessName("another", 1, 1.0)
    beat(db, worker="far", process=far, run=run.id)
    assert runs.claim_run(db, "far", runs.LEASE_SECONDS)
    me = Registration(db)
    set_clock(400 * 86400)
    me.release_dead_workers()
    assert runs.claim_run(db, me.id, 60) is None
    monkeypatch.setattr(worker, "SILENT_SECONDS", -1)
    set_clock(-400 * 86400)
    beat(db, worker="far", process=far, run=run.id)  # it lives
    me.release_dead_workers()
    assert runs.claim_run(db, me.id, 60) is None and len(list_workers(db)) == 1
    me.release_dead_workers()
    assert runs.claim_run(db, me.id, 60) is not None


@pytest.mark.parametrize("step", STEPS)
def test_the_queue_keeps_its_order_and_a_start_its_own_run(db: Database, set_clock: SetClock, step: float) -> None:
    first = a_run(db)
    store = drafts.DraftStore(lambda: db, dict)
    experiment = {"name": "twice", "model": "embedded", "seed": 1}
    second = store.start("a" * 16, experiment, None)
    set_clock(step)
    if abs(step) > drafts.SAME_START_SECONDS:
        assert store.start("a" * 16, experiment, None).id != second.id, "a second start was swallowed"
    taken = runs.claim_run(db, "w", 60)
    assert taken is not None and taken.id == first.id


def test_what_a_dead_asker_had_taken_is_taken_again_after_the_clock_was_set_back(
    db: Database, set_clock: SetClock
) -> None:
    db.execute("pragma foreign_keys = off")
    asking_queue.add_column(db, "asking", "run", "a run", "base")
    sql = "update asking_columns set state = 'asking', lease_until = ?"
    db.conn.execute(sql, [time.time() + 20])
    assert not asking_queue.anything_waits(db)
    set_clock(-400 * 86400)
    assert asking_queue.anything_waits(db)
