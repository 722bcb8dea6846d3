"""Starting the lab: ports, the default experiment, and the worker it keeps alive."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from app import __main__ as start
from app.server import worker_process
from app.server.first_start import made_at_first_start, queue_first_run
from app.server.worker_process import WorkerProcess
from app.shared.lab import Lab
from storage.attacks import attack_counts, base_runs, list_attacks, stop_attack
from storage.processes import ProcessName
from storage.runs import list_runs
from storage.workers import beat


def test_a_port_in_use_is_said_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(typer.Exit) as ended:
            start.open_port("127.0.0.1", taken.getsockname()[1])
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert "is in use" in said
    assert said.count("\n") == 1


def test_without_a_port_the_next_free_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        monkeypatch.setattr(start, "DEFAULT_PORT", busy)
        listener = start.open_port("127.0.0.1", None)
    port = listener.getsockname()[1]
    listener.close()
    assert port > busy
    assert f"takes port {port}" in capsys.readouterr().out


def test_an_address_that_is_not_ours_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        start.open_port("203.0.113.7", 7860)
    assert "cannot listen" in capsys.readouterr().err


def test_the_default_experiment_is_queued_once_in_the_life_of_a_home(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = queue_first_run(lab)
    assert run is not None
    assert run.state == "queued"
    assert len(run.experiment["relations"][0]["facts"]) == 100, "stored resolved"
    (attack,) = list_attacks(lab.db)
    assert base_runs(lab.db, attack.id) == [run.id], "the story attacks the first run, nothing is memorised twice"
    assert set(attack_counts(lab.db, attack.id)) == {"queued"}
    assert made_at_first_start(tmp_path, attack.id)
    assert not made_at_first_start(tmp_path, "another")
    assert queue_first_run(lab) is None
    stop_attack(lab.db, attack.id)
    lab.delete_attack(attack.id)
    assert list_attacks(lab.db) == []
    lab.delete(run.id)
    assert queue_first_run(Lab(tmp_path)) is None
    assert list_runs(lab.db) == []


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_worker_that_dies_is_started_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "FIRST_PAUSE_SECONDS", 0.05)
    worker = WorkerProcess(tmp_path, [sys.executable, "-c", "print('here'); raise SystemExit(3)"])
    worker.start()
    until(lambda: worker.starts >= 3)
    worker.stop()
    log = (tmp_path / "logs" / "worker.log").read_text()
    assert log.count("here") >= 2
    assert "exit status 3" in log


def test_stopping_ends_the_worker(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, [sys.executable, "-c", "import time; time.sleep(600)"])
    lab = Lab(tmp_path, worker.starting)
    assert lab.worker_state() == "absent"
    worker.start()
    until(lambda: worker.starts == 1 and worker._process is not None)
    process = worker._process
    assert lab.worker_state() == "starting"
    worker.stop()
    assert lab.worker_state() == "absent"
    assert process is not None
    assert process.poll() is not None
    assert worker.starts == 1


def test_the_state_of_the_worker(tmp_path: Path) -> None:
    lab = Lab(tmp_path, lambda: True)
    assert lab.worker_state() == "starting"
    me = ProcessName.of()
    beat(lab.db, worker="w", process=me, run=None)
    assert lab.worker_state() == "ready"
    beat(lab.db, worker="w", process=me, run="r")
    assert lab.worker_state() == "busy"
    beat(lab.db, worker="w", process=replace(me, started=me.started - 60), run="r")
    assert lab.worker_state() == "starting", "a worker that was killed has not registered out"
