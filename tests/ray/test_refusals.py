"""What cannot be used is refused in one sentence, before a run begins; a real cluster is asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from engine.serving.listening import free_port
from storage.runs import State
from tests.integration.kill_runs import SMALLEST
from tests.integration.lab import ROOT, Lab, wait_until
from tests.ray.cluster import Machines


def said(lab: Lab, address: str, code: int = 2, **changed: str | None) -> str:
    """What `rote-lab worker --on` says on standard error, with these variables changed (None: unset)."""
    environment = {name: value for name, value in (os.environ | changed).items() if value is not None}
    command = [sys.executable, "-m", "engine", "worker", "--once", "--home", str(lab.home), "--on", address]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == code
    return done.stderr.strip().splitlines()[-1]


def test_no_connection_without_a_token(machines: Machines, lab: Lab, tmp_path: Path) -> None:
    run = lab.queue(SMALLEST)
    assert "is no address of a cluster" in said(lab, "head.example.org")
    assert said(lab, "ray://head..org:10001").startswith("error: No cluster answers at ray://head..org:10001: ")
    nobody = f"127.0.0.1:{free_port()}"
    assert said(lab, nobody).startswith(f"error: No cluster answers at {nobody}: look whether it runs")
    off = said(lab, machines.address, RAY_AUTH_MODE="disabled")
    assert off.startswith("error: RAY_AUTH_MODE is ‘disabled’: the lab uses a cluster only with token authentication")
    none = said(lab, machines.address, RAY_AUTH_TOKEN=None, RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    assert none.startswith("error: There is no token for the cluster")
    wrong = said(lab, machines.address, RAY_AUTH_TOKEN="0" * 64)
    assert machines.address in wrong and "token" in wrong
    assert lab.run(run.id).state is State.QUEUED and lab.run(run.id).attempt == 0


def test_where_nobody_answers_nothing_is_queued(machines: Machines, lab: Lab) -> None:
    for words in (["study", "paper-main"], ["run", "quick"]):
        command = [sys.executable, "-m", "engine", *words, "--home", str(lab.home), "--on", f"127.0.0.1:{free_port()}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
        assert done.returncode == 2 and "No cluster answers at" in done.stderr
    assert lab.db.execute("select (select count(*) from runs), (select count(*) from studies)").fetchone() == (0, 0)


def test_a_cluster_that_asks_for_no_token_is_refused(lab: Lab, tmp_path: Path) -> None:
    port, client = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus", "1"]
    command += ["--port", str(port), "--ray-client-server-port", str(client), "--include-dashboard", "false"]
    with (tmp_path / "said.txt").open("wb") as out:
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        head = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}"):
            wait_until(partial(answers, address.removeprefix("ray://")), "the cluster")
            assert f"The cluster at {address} asks for no token" in said(lab, address)
    finally:
        for process in psutil.Process(head.pid).children(recursive=True):
            process.kill()
        head.kill()
        head.wait()


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def test_a_machine_with_another_version_of_the_lab_gets_no_run(
    machines: Machines, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("engine", "storage"):
        shutil.copytree(ROOT / room, tmp_path / "other" / room, ignore=shutil.ignore_patterns("__pycache__"))
    start = tmp_path / "other/engine/__init__.py"
    start.write_text(start.read_text().replace('__version__ = "', '__version__ = "9.'))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    for node in machines.nodes:
        machines.kill(node)
    machines.nodes = [machines.add()]
    run = lab.queue(SMALLEST)
    # From outside: on one machine a process of the cluster would bring its own code with it.
    sentence = said(lab, machines.client)
    assert "has another version of what this one has: the lab 9." in sentence
    assert sentence.endswith("Install the same on all machines.")
    assert lab.run(run.id).state is State.QUEUED and lab.run(run.id).attempt == 0
