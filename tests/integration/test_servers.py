"""Model servers that are killed, left behind, hung or in the way of training. With the embedded one: it starts fast."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.serving.client import ServerClient, ServingError
from engine.serving.listening import take_port
from engine.serving.processes.supervisor import DeviceBusy, Place, Supervisor
from engine.serving.served import ServedModel
from storage.devices import device_holds
from storage.runs import Run, State
from storage.servers import list_servers
from tests.integration.kill_servers import kill_while_asking
from tests.integration.lab import SMALL, Lab, wait_until
from tests.integration.serving import lab_with_server, lab_with_trained, models_by_name, server_processes

ONE_EPOCH = ("quick-lora", "stage1.checkpoint_epochs=[1]", "stage1.epochs=1")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Run]]:
    folder = tmp_path_factory.mktemp("servers")
    lab, run = lab_with_trained(folder / "made", folder / "home", *ONE_EPOCH)
    yield lab, run
    lab.close()


@pytest.fixture
def alone(ready: tuple[Lab, Run], tmp_path: Path) -> Iterator[tuple[Lab, Run]]:
    """The same run in a lab of the test's own."""
    lab, run = lab_with_trained(ready[0].home.with_name("made"), tmp_path / "home", *ONE_EPOCH)
    yield lab, run
    lab.close()


@pytest.fixture
def model(ready: tuple[Lab, Run]) -> ServedModel:
    return models_by_name(*ready)["generalised@1"]


@pytest.fixture
def supervisor(ready: tuple[Lab, Run]) -> Iterator[Supervisor]:
    lab, _ = ready
    made = Supervisor(lab.home, "embedded")
    yield made
    made.stop()
    assert list_servers(lab.db) == [] and server_processes(lab.home) == []


def answers(place: Place) -> bool:
    with ServerClient(place.url) as client:
        return bool(client.complete(place.model, [[5, 6]], max_tokens=1).choices)


def test_ten_kills_while_questions_run(supervisor: Supervisor, model: ServedModel) -> None:
    outcome = kill_while_asking(supervisor, model, times=10)
    assert outcome.unforeseen == []
    assert outcome.asked == outcome.answers + sum(outcome.messages.values())
    assert outcome.answers and set(outcome.messages) <= {
        "the model server at http://127.0.0.1:PORT is not running, or ended in the middle of the answer"
    }
    print(f"first start {outcome.first_start:.1f} s, back after {[round(s, 1) for s in outcome.back]}")
    # No pause between: it had answered. Other work on the machine may slow single starts.
    assert sorted(outcome.back)[5] < 2 * outcome.first_start + 2


def test_a_killed_lab_s_server_ends_by_itself_and_the_next_lab_starts_its_own(
    ready: tuple[Lab, Run], supervisor: Supervisor, model: ServedModel
) -> None:
    lab, run = ready
    process, _ = lab_with_server(lab, run, "embedded", model.checkpoint)
    (before,) = list_servers(lab.db)
    process.kill()
    process.wait()
    killed = time.monotonic()
    wait_until(lambda: not server_processes(lab.home), "the server of the killed lab to end")
    assert time.monotonic() - killed < 15
    with take_port(before.port or 0):  # free again
        pass
    supervisor.start()
    assert list_servers(lab.db) == [] and supervisor.servers() == []
    assert answers(supervisor.place(model))
    (after,) = list_servers(lab.db)
    assert after.id != before.id and after.owner.pid == os.getpid()


def test_the_next_lab_need_not_wait_for_that(
    ready: tuple[Lab, Run], supervisor: Supervisor, model: ServedModel
) -> None:
    lab, run = ready
    process, _ = lab_with_server(lab, run, "embedded", model.checkpoint)
    process.kill()
    process.wait()
    supervisor.start()
    assert list_servers(lab.db) == [] and server_processes(lab.home) == []
    assert answers(supervisor.place(model))


def test_what_does_not_answer_is_ended_by_the_next_lab(
    ready: tuple[Lab, Run], supervisor: Supervisor, model: ServedModel
) -> None:
    lab, run = ready
    process, _ = lab_with_server(lab, run, "embedded", model.checkpoint)
    (row,) = list_servers(lab.db)
    assert row.keeper is not None
    left = [psutil.Process(row.keeper.pid), *psutil.Process(row.keeper.pid).children(recursive=True)]
    for stopped in reversed(left):
        stopped.send_signal(signal.SIGSTOP)
    process.kill()
    process.wait()
    supervisor.start()
    assert list_servers(lab.db) == [] and psutil.wait_procs(left, timeout=5)[1] == []
    assert answers(supervisor.place(model))


def test_a_killed_keeper_takes_its_server_with_it_and_both_come_back(
    ready: tuple[Lab, Run], supervisor: Supervisor, model: ServedModel
) -> None:
    supervisor.place(model)
    (server,) = supervisor.servers()
    assert server.keeper is not None
    children = psutil.Process(server.keeper.pid).children(recursive=True)
    os.kill(server.keeper.pid, signal.SIGKILL)
    wait_until(lambda: server.state != "ready", "notice of the kill")
    assert answers(supervisor.place(model))
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    (row,) = list_servers(ready[0].db)
    assert row.restarts == 1 and row.state == "ready"


def test_a_lab_that_lives_keeps_its_server(ready: tuple[Lab, Run], model: ServedModel) -> None:
    lab, run = ready
    process, url = lab_with_server(lab, run, "embedded", model.checkpoint)
    second = Supervisor(lab.home, "embedded")
    second.start()
    try:
        assert second.servers() == []
        place = second.place(model)
        assert place.url != url and answers(place)
    finally:
        second.stop()
    with ServerClient(url) as client:
        client.health()
    process.kill()
    process.wait()
    third = Supervisor(lab.home, "embedded")
    third.start()
    third.stop()
    assert list_servers(lab.db) == [] and server_processes(lab.home) == []


def test_training_gets_the_device_and_the_server_comes_back(
    alone: tuple[Lab, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROTE_LAB_SHARE_DEVICE", "no")
    lab, run = alone
    model = models_by_name(lab, run)["generalised@1"]
    supervisor = Supervisor(lab.home, "embedded")
    try:
        assert answers(supervisor.place(model))
        assert [(h.kind, h.state) for h in device_holds(lab.db, "cpu")] == [("server", "holding")]
        (server,) = supervisor.servers()
        training = lab.queue(SMALL)
        worker = lab.worker("--once")
        wait_until(lambda: server.state == "waiting", "the server to leave the device")
        with pytest.raises(DeviceBusy, match=f"Training has the device .*{training.id}"):
            supervisor.place_now(model)
        assert [(r.state, training.id in r.message) for r in list_servers(lab.db)] == [("waiting", True)]
        assert server_processes(lab.home) == []
        wait_until(lambda: lab.run(training.id).progress.get("stage") == "stage1", "training")
        assert [(h.holder, h.state) for h in device_holds(lab.db, "cpu")] == [(training.id, "holding")]
        assert worker.wait() == 0 and lab.run(training.id).state is State.DONE
        wait_until(lambda: server.state == "ready", "the server to come back")
        assert answers(supervisor.place(model))
    finally:
        supervisor.stop()
    assert device_holds(lab.db, "cpu") == []


def test_a_killed_run_leaves_the_device(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTE_LAB_SHARE_DEVICE", "no")
    run = lab.queue(SMALL)
    worker = lab.worker()
    wait_until(lambda: device_holds(lab.db, "cpu"), "the run to take the device")
    worker.kill()
    worker.wait()
    wait_until(lambda: not device_holds(lab.db, "cpu"), "the device to be free")
    assert lab.worker("--once").wait() == 0 and lab.run(run.id).state is State.DONE


def test_a_server_that_cannot_start_says_why_and_the_next_question_tries_again(
    ready: tuple[Lab, Run], model: ServedModel
) -> None:
    lab, _ = ready
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        supervisor = Supervisor(lab.home, "embedded", port=port)
        with pytest.raises(ServingError, match=str(port)):
            supervisor.place(model)
    try:
        place = supervisor.place(model)
        assert place.url.endswith(f":{port}") and answers(place)
    finally:
        supervisor.stop()


def test_a_checkpoint_deleted_under_the_server(alone: tuple[Lab, Run], tmp_path: Path) -> None:
    lab, run = alone
    models = models_by_name(lab, run)
    supervisor = Supervisor(lab.home, "embedded")
    try:
        supervisor.place(models["generalised@1"])
        models["memorised@1"].folder.rename(tmp_path / "gone")
        with pytest.raises(ServingError, match="no longer on the disk"):
            supervisor.place(models["memorised@1"])
        assert answers(supervisor.place(models["generalised@1"]))
    finally:
        supervisor.stop()
