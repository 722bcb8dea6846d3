"""What one caller can take from the page: bodies, sessions, waits, connections. And a lab that others could reach."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.server import gradio_bounds
from app.server.gradio_bounds import MOST_SESSIONS, gradio_of
from app.server.security import MOST_BYTES
from app.server.sign_in import BEYOND, NOBODY, NOT_THE_PROXY
from engine.commands.run import queue_experiment, read_experiment
from engine.serving import connections
from engine.serving.connections import server_settings
from engine.serving.guard import STRANGE_HOST
from engine.serving.listening import free_port
from storage.database import open_database
from tests.browser.asking_seeding import text_asked
from tests.integration.lab import ROOT, wait_until
from tests.integration.page import Asked, Here, ask, process

RUN = "/gradio_api/run/predict"


def tick(here: Here, session: str = "tick") -> Asked:
    """What the header of an open page asks again and again."""
    (function, *_) = [f for f in here.pages.fns.values() if f.api_name == "look"]
    body = {"data": [None] * len(function.inputs), "fn_index": function._id, "session_hash": session}
    return Asked("POST", RUN, body=json.dumps(body))


def search(here: Here, text: str) -> dict[str, object]:
    """A text that is typed into the page, as its script sends it."""
    (function, *_) = [f for f in here.pages.fns.values() if [type(b).__name__ for b in f.inputs] == ["HTML", "Textbox"]]
    return {"data": ["", text], "fn_index": function._id, "session_hash": "typed"}


def test_ten_megabytes_that_are_typed_arrive_and_much_more_is_refused_in_words(here: Here) -> None:
    with httpx.Client(base_url=here.address, timeout=120) as page:
        assert page.post(RUN, json=search(here, '"\n' * 5_000_000)).status_code == 200
        too_long = b" " * (MOST_BYTES + 1)
        told = page.post(RUN, content=too_long, headers={"Content-Type": "application/json"})
        assert (told.status_code, told.json()["error"]) == (413, "This is over 32 MiB: send less at once.")
        pieces = (too_long[:65536] for _ in range(MOST_BYTES // 65536 + 2))
        told = page.post(RUN, content=pieces, headers={"Content-Type": "application/json"})
        assert (told.status_code, told.json()["error"]) == (413, "This is over 32 MiB: send less at once.")
        assert page.get("/model-card").status_code == 200
    state = gradio_of(here.site).state_holder.session_data["typed"]
    assert not list(state.components), "what was typed is not kept beside the session"


def test_the_memory_of_sessions_is_bounded_and_goes_back(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = gradio_of(here.site).state_holder
    sessions = holder.session_data
    assert holder.capacity == MOST_SESSIONS
    monkeypatch.setattr(holder, "capacity", 8)
    ask(here.port, [tick(here, f"page {number}") for number in range(20)])
    assert set(sessions) == {f"page {number}" for number in range(12, 20)}, "the ones used last"
    monkeypatch.setattr(gradio_bounds, "LEFT_SECONDS", 0.0)
    wait_until(lambda: not sessions, "every page that is gone to be forgotten")
    monkeypatch.undo()
    (told,) = ask(here.port, [tick(here, "page 1")])
    assert told.status == 200, "a page that comes back goes on"


def test_forty_waiting_calls_leave_the_page_its_threads(here: Here) -> None:
    db = open_database(here.home)
    run = queue_experiment(db, read_experiment("quick", [], 1))
    asking = text_asked(db, run, "Vurnia Virik is", ("base",))
    body = json.dumps({"data": [asking, f"{run.id}/base", 500]})
    queue = here.pages._queue

    def at_work() -> int:
        return sum(len(jobs) for jobs in queue.active_jobs if jobs)

    try:
        calls = ask(here.port, [Asked("POST", "/gradio_api/call/ask_another_model", body=body)] * 40)
        assert {told.status for told in calls} == {200}
        wait_until(lambda: at_work() == 40, "forty calls that wait")
        told = ask(here.port, [tick(here)] * 5 + [Asked("GET", "/model-card")])
        assert {answer.status for answer in told} == {200}
        assert at_work() == 40, "the page was answered while they waited"
    finally:
        with db.conn:
            db.conn.execute("update asking_columns set state = 'done' where asking = ?", [asking])
    wait_until(lambda: at_work() == 0, "the calls' end")


def test_a_stream_to_which_nothing_comes_is_ended(here: Here) -> None:
    (answered,) = [f for f in here.pages.fns.values() if f.api_name == "list_models_to_ask"]
    body = {"data": [""], "fn_index": answered._id, "session_hash": "late"}

    def messages() -> list[str]:
        with page.stream("GET", "/gradio_api/queue/data", params={"session_hash": "late"}) as stream:
            return [json.loads(line[5:])["msg"] for line in stream.iter_lines() if line.startswith("data:")]

    with httpx.Client(base_url=here.address, timeout=60) as page:
        assert page.post("/gradio_api/queue/join", json=body).status_code == 200
        assert messages()[-2:] == ["process_completed", "close_stream"]
        assert messages() == ["close_stream"], "the answer went by another stream"
        assert page.post("/gradio_api/queue/join", json=body).status_code == 200
        assert messages()[-2:] == ["process_completed", "close_stream"], "the session goes on"


def half_open(port: int, text: bytes = b"GET / HTTP/1.1\r\nHost: 127.0") -> socket.socket:
    """A connection on which a request was begun and never ended."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.sendall(text)
    return connection


def ended(connection: socket.socket) -> bool:
    """Whether the server closes it, sooner or later."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


@pytest.mark.parametrize("text", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nA: b"])
def test_a_head_that_never_ends_is_not_waited_for(here: Here, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with half_open(here.port, text) as connection:
        assert ended(connection)
    used = f"GET /robots.txt HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n\r\n".encode()
    with half_open(here.port, used) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.sendall(text or b"G")
        assert ended(connection)


def test_whoever_connects_is_who_the_socket_says() -> None:
    settings = server_settings()
    assert settings["proxy_headers"] is False
    assert settings["ws"] == "none"
    assert 16 <= settings["limit_concurrency"] <= 1000


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a lab that listens on every address, behind a proxy on this machine, with few files."""
    port = free_port()
    behind = ["--user-header", "X-Forwarded-User", "--proxy", "127.0.0.1", "--allowed-host", "Lab.example"]
    with process(tmp_path_factory.mktemp("beyond"), port, "--host", "0.0.0.0", *behind, files=256):
        yield port


def test_behind_a_proxy_the_lab_answers_to_those_it_names(beyond: int) -> None:
    named = {"Host": "lab.example", "X-Forwarded-User": "ada@example.org", "X-Forwarded-Proto": "https"}
    asked = [
        named,
        named | {"Host": "LAB.EXAMPLE:443", "Origin": "https://lab.example:443"},
        named | {"Host": "127.0.0.1"},
        named | {"Host": "lab.example."},
        named | {"Origin": "https://evil.example"},
        {"Host": "lab.example"},
        named | {"X-Forwarded-User": ""},
        named | {"X-Forwarded-User": "ada, eve"},
        named | {"x-forwarded-user": "eve"},
    ]
    told = ask(beyond, [Asked("GET", "/", headers) for headers in asked])
    assert [answer.status for answer in told] == [200, 200, 403, 403, 403, 401, 401, 401, 401]
    assert told[2].text == STRANGE_HOST
    assert told[5].text == NOBODY
    with socket.create_connection(("127.0.0.1", beyond), source_address=("127.0.0.2", 0)) as stranger:
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**named, "X-Forwarded-For": "127.0.0.1"}.items())
        stranger.sendall(f"GET / HTTP/1.0\r\n{lines}\r\n".encode())
        answer = b"".join(iter(lambda: stranger.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 403")
    assert answer.endswith(NOT_THE_PROXY)


def test_half_open_connections_do_not_freeze_a_lab_of_few_files(beyond: int) -> None:
    with contextlib.ExitStack() as kept:
        for _ in range(300):
            kept.enter_context(half_open(beyond))
        named = {"Host": "lab.example", "X-Forwarded-User": "ada"}
        told = ask(beyond, [Asked("GET", "/", named), Asked("GET", "/runs", named), Asked("GET", "/config", named)] * 3)
        assert {answer.status for answer in told} == {200}


def test_beyond_this_machine_the_lab_does_not_start_without_sign_in(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "--host", "0.0.0.0", "--port", str(free_port()), "--home", f"{tmp_path}/h"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (done.returncode, done.stderr) == (2, f"{BEYOND}\n")
    assert not (tmp_path / "h").exists()
