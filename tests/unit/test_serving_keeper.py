"""The keeper of a server leaves no process behind; whoever dies; and holds of a device end with their process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlite_utils import Database

from engine.serving.processes import keeper
from engine.serving.processes.sessions import end_left_session, session_processes
from storage.database import open_database
from storage.devices import device_holds, release_device, request_for_run, run_on_device, take_for_server
from storage.processes import ProcessName
from storage.servers import add_server, left_servers, list_servers, remove_server, update_server

ROOT = Path(__file__).resolve().parents[2]
# A server with a child in the background that ignores a polite end, as vLLM's engine may.
STUBBORN = ["sh", "-c", "trap '' TERM; (trap '' TERM; sleep 300; sleep 300) & sleep 300"]


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path)


def sleeper() -> tuple[subprocess.Popen[bytes], ProcessName]:
    process = subprocess.Popen(["sleep", "300"])
    return process, ProcessName.of(process.pid)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def keeper_command(*command: str) -> list[str]:
    return [sys.executable, "-m", keeper.__name__, "1", *command]


def keep() -> subprocess.Popen[bytes]:
    """A keeper whose lab is this process, with everything it keeps."""
    command = keeper_command(*STUBBORN)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    # The keeper, the shell, its background shell, and their sleeps.
    wait_for(lambda: len(session_processes(process.pid)) >= 5)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_end_it_ends_everything(number: signal.Signals) -> None:
    with keep() as process:
        process.send_signal(number)
        assert process.wait(30) == 0 and session_processes(process.pid) == []


def test_a_killed_lab_takes_its_server_along_within_seconds() -> None:
    code = "import subprocess, sys, time; kept = subprocess.Popen(sys.argv[1:], stdin=-1, start_new_session=True);"
    code += "print(kept.pid, flush=True); time.sleep(300)"
    command = [sys.executable, "-c", code, *keeper_command(*STUBBORN)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as lab:
        assert lab.stdout is not None
        session = int(lab.stdout.readline())
        wait_for(lambda: len(session_processes(session)) >= 5)
        time.sleep(1)
        assert len(session_processes(session)) >= 5, "it ended although its lab lives"
        lab.kill()
    wait_for(lambda: not session_processes(session), 10)


def test_an_orderly_server_may_end_in_its_own_way(tmp_path: Path) -> None:
    note = tmp_path / "said goodbye"
    orderly = f"trap 'touch \"{note}\"; exit 0' TERM; touch '{tmp_path}/up'; while true; do sleep 0.1; done"
    command = keeper_command("sh", "-c", orderly)
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True) as process:
        wait_for((tmp_path / "up").exists)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0 and note.exists()


def test_a_server_that_dies_takes_its_children_along_and_its_status_is_told() -> None:
    with keep() as process:
        shell = psutil.Process(process.pid).children()[0]
        shell.kill()
        assert process.wait(30) == 128 + signal.SIGKILL and session_processes(process.pid) == []


def test_what_a_killed_keeper_leaves_is_found_by_its_session() -> None:
    with keep() as process:
        leader = ProcessName.of(process.pid)
        process.kill()
    assert session_processes(leader.pid), "nothing to find: the test proves nothing"
    end_left_session(leader, 1)
    assert session_processes(leader.pid) == []


def test_a_session_of_the_same_number_is_spared() -> None:
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    name = ProcessName.of(process.pid)
    end_left_session(ProcessName(name.host, name.pid, name.started - 1000), 1)
    end_left_session(ProcessName(name.host, 4_000_000, psutil.boot_time() - 1000), 1)
    assert process.poll() is None
    end_left_session(name, 5)
    assert process.wait(10) is not None


def test_servers_whose_lab_has_died_are_told_from_those_of_a_living_one(db: Database) -> None:
    lab, owner = sleeper()
    server = add_server(db, backend="vllm", serves="key", reason="a test", owner=owner)
    add_server(db, backend="embedded", serves="", reason="a test", owner=ProcessName.of())
    update_server(db, server, state="ready", keeper=owner, port=1234)
    assert left_servers(db) == []
    lab.kill()
    lab.wait()
    assert [(row.id, row.keeper) for row in left_servers(db)] == [(server, owner)]
    remove_server(db, server)
    assert left_servers(db) == [] and len(list_servers(db)) == 1


def test_a_run_goes_before_servers_and_never_beside_another_run(db: Database) -> None:
    me = ProcessName.of()
    assert take_for_server(db, ["cuda"], "s1", me) is None and take_for_server(db, ["cuda"], "s2", me) is None
    assert not request_for_run(db, "cuda", "r1", me) and run_on_device(db, "cuda") == "r1"
    assert take_for_server(db, ["cuda"], "s3", me) == "r1", "a server took what a run waits for"
    release_device(db, "cuda", "s1")
    assert not request_for_run(db, "cuda", "r1", me)
    release_device(db, "cuda", "s2")
    assert request_for_run(db, "cuda", "r1", me) and not request_for_run(db, "cuda", "r2", me)
    assert take_for_server(db, ["cuda:1"], "s3", me) is None, "another device is another matter"
    release_device(db, "cuda", "r1")
    assert request_for_run(db, "cuda", "r2", me)


def test_a_server_takes_all_its_devices_or_none(db: Database) -> None:
    me = ProcessName.of()
    assert request_for_run(db, "cuda:1", "r1", me)
    assert take_for_server(db, ["cuda:0", "cuda:1"], "s1", me) == "r1" and device_holds(db, "cuda:0") == []
    release_device(db, "cuda:1", "r1")
    assert take_for_server(db, ["cuda:0", "cuda:1"], "s1", me) is None
    assert not request_for_run(db, "cuda:0", "r2", me) and not request_for_run(db, "cuda:1", "r3", me)


def test_a_hold_ends_with_its_process(db: Database) -> None:
    process, name = sleeper()
    assert take_for_server(db, ["cuda"], "s1", name) is None
    assert not request_for_run(db, "cuda", "r1", ProcessName.of())
    process.kill()
    process.wait()
    assert request_for_run(db, "cuda", "r1", ProcessName.of())
    assert [hold.holder for hold in device_holds(db, "cuda")] == ["r1"]


def test_two_waiting_runs_get_the_device_one_after_the_other(db: Database) -> None:
    me = ProcessName.of()
    assert take_for_server(db, ["cuda"], "s1", me) is None
    assert [request_for_run(db, "cuda", run, me) for run in ("r1", "r2")] == [False, False]
    release_device(db, "cuda", "s1")
    assert [request_for_run(db, "cuda", run, me) for run in ("r1", "r2")] == [True, False]
