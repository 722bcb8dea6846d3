"""What whoever keeps the lab running reads: /healthz and /metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.server.sign_in import Access
from engine import __version__
from engine.commands.run import queue_experiment, read_experiment
from engine.serving.listening import free_port
from storage.database import open_database, write
from storage.runs import request_stop
from tests.integration.lab import ROOT, Lab
from tests.integration.page import Asked, Here, ask, process, served_here


def figures(here: Here) -> dict[tuple[str, str], float]:
    """Each figure by its name and its labels' values."""
    told = httpx.get(f"{here.address}/metrics")
    assert told.status_code == 200
    families = text_string_to_metric_families(told.text)
    return {(s.name, " ".join(s.labels.values())): s.value for family in families for s in family.samples}


def test_figures_are_of_this_moment(here: Here) -> None:
    db = open_database(here.home)
    before = figures(here)
    assert before["rote_lab_info", __version__] == 1
    run = queue_experiment(db, read_experiment("quick", [], 1))
    httpx.get(f"{here.address}/runs")
    httpx.get(f"{here.address}/export/none/results.csv")
    after = figures(here)
    assert after["rote_lab_runs", "queued"] == before["rote_lab_runs", "queued"] + 1
    assert after["rote_lab_requests_total", "page 200"] >= before.get(("rote_lab_requests_total", "page 200"), 0) + 1
    assert after["rote_lab_requests_total", "export 404"] >= 1
    assert after["rote_lab_request_seconds_count", "page"] >= 1
    assert after["rote_lab_disk_free_bytes", ""] > 0
    assert after["rote_lab_workers", ""] == 0
    request_stop(db, run.id)
    assert figures(here)["rote_lab_runs", "queued"] == before["rote_lab_runs", "queued"]


def test_names_that_strangers_ask_for_are_not_kept(here: Here) -> None:
    for number in range(20):
        httpx.get(f"{here.address}/strange{number}")
    kept = {labels for name, labels in figures(here) if name == "rote_lab_requests_total"}
    assert all(labels.split()[0] in {"page", "function", "upload", "export", "file", "stream"} for labels in kept)


def test_health_is_told_to_everybody_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    behind = Access(frozenset({"lab.example.org"}), (ip_network("10.0.0.1/32"),), "X-Forwarded-User")
    with served_here(home, behind) as here:
        told = httpx.get(f"{here.address}/healthz")
        assert (told.status_code, told.json()) == (200, {"status": "ok", "worker": "absent", "version": __version__})
        assert told.headers["x-content-type-options"] == "nosniff" and "set-cookie" not in told.headers
        for path in ("/metrics", "/healthz/", "/healthz/../metrics", "/runs"):
            (refused,) = ask(here.port, [Asked("GET", path)])
            assert refused.status == 403, path
        database = home / "lab.db"
        database.rename(home / "away.db")
        missing = httpx.get(f"{here.address}/healthz")
        assert missing.status_code == 503 and f"{database} cannot be used" in missing.json()["reason"]
        (home / "away.db").rename(database)
        assert httpx.get(f"{here.address}/healthz").status_code == 200
        with write(open_database(home)) as db:
            db.execute("alter table runs rename to gone")
        failing = httpx.get(f"{here.address}/healthz")
        assert failing.status_code == 503 and json.loads(failing.text)["status"] == "failing"


def test_logs_are_json_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTE_LAB_LOG", "json")
    lab = Lab(tmp_path / "home")
    assert lab.worker("--once").wait() == 0
    with process(tmp_path / "page", free_port()):
        pass
    for log, words in ((lab.home / "worker.log", "Worker"), (tmp_path / "page" / "server.log", "Rote Lab is ready at")):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert any(words.lower() in line["message"].lower() for line in lines), lines
        assert all({"at", "level", "logger", "pid"} <= line.keys() for line in lines)


UNCAUGHT = """
import logging, threading, warnings
from engine.logs import set_up_logs
set_up_logs()
logging.info("odd \\ud800 \\0 \\x1b[31m \\n two lines %s", {"a": 1})
warnings.warn("about to end")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("the end")
"""


def test_what_nobody_catches_is_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTE_LAB_LOG", "json")
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    odd, warned, in_thread, last = (json.loads(line) for line in done.stderr.splitlines())
    assert odd["message"].endswith("two lines {'a': 1}")
    assert warned["level"] == "WARNING" and "about to end" in warned["message"]
    assert "division by zero" in in_thread["message"] and "ZeroDivisionError" in in_thread["exc_info"]
    assert "the end" in last["message"] and "ValueError" in last["exc_info"]
