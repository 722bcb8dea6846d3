"""The lab's page for tests of who may do what with it: in this process, or as `python -m app`, asked by anybody."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import uvicorn
from fastapi import FastAPI

from app.server.gradio_bounds import Pages, gradio_of
from app.server.sign_in import THIS_MACHINE, Access, Provider
from app.site import build_site
from engine.serving.connections import server_settings
from engine.serving.listening import take_port
from tests.integration.lab import PATIENCE_SECONDS, ROOT, wait_until
from tests.recordings import leave_out_recordings

T = TypeVar("T")
# A process that asks what it reads from its input and tells what it was answered. It becomes the other account itself,
# with all it needs loaded: that account may not be allowed to run this interpreter.
ASKER = """
import http.client, json, os, pwd, sys
todo = json.load(sys.stdin)
"127.0.0.1".encode("idna")
if todo["user"]:
    account = pwd.getpwnam(todo["user"])
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
told = []
for method, path, headers, body in todo["requests"]:
    connection = http.client.HTTPConnection("127.0.0.1", todo["port"], timeout=300)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    data = body.encode()
    if method not in ("GET", "HEAD"):
        headers.setdefault("Content-Length", str(len(data)))
        headers.setdefault("Content-Type", "application/json")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(data)
    reply = connection.getresponse()
    endless = reply.getheader("content-type", "").startswith("text/event-stream")
    text = "" if endless else reply.read().decode("utf-8", "replace")
    told.append([reply.status, text if todo["whole"] else text[:200], dict(reply.getheaders())])
    connection.close()
json.dump({"user": os.getuid(), "told": told}, sys.stdout)
"""


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Told:
    """What came back of it."""

    status: int
    text: str
    headers: dict[str, str]


def ask(port: int, requests: list[Asked], user: str | None = None, whole: bool = False) -> list[Told]:
    """Let a process of that account (by default this one) send the requests, one after another."""
    own = {"Host": f"127.0.0.1:{port}"}
    listed = [[r.method, r.path, own | r.headers, r.body] for r in requests]
    todo = json.dumps({"port": port, "whole": whole, "user": user, "requests": listed})
    python = [sys.executable, "-I", "-S", "-c", ASKER]
    done = subprocess.run(python, input=todo, capture_output=True, text=True, cwd="/", timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["user"] == os.getuid()) == (user is None)
    return [Told(status, text, {k.lower(): v for k, v in headers.items()}) for status, text, headers in answer["told"]]


@dataclass(frozen=True)
class Here:
    """A site that this process serves on a port."""

    site: FastAPI
    home: Path
    port: int

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pages(self) -> Pages:
        """What Gradio serves of it."""
        return cast(Pages, gradio_of(self.site).get_blocks())


@contextmanager
def served_here(home: Path, access: Access = THIS_MACHINE, openid: Provider | None = None) -> Iterator[Here]:
    """The site of that home on a free port, served as `python -m app` serves it, by a thread of this process."""
    with take_port(0) as listener:
        site = build_site(home, access, openid=openid)
        config = uvicorn.Config(site, log_level="error", timeout_graceful_shutdown=1, **server_settings())
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started, "the page's start")
        yield Here(site, home, listener.getsockname()[1])
        server.should_exit = True
        thread.join(30)


@contextmanager
def process(home: Path, port: int, *options: str, files: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m app` without a worker, which may have that many files open; killed in the end."""
    words = [sys.executable, "-m", "app", "--home", str(home), "--port", str(port), "--no-worker", *options]
    if files:
        words = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *words]
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "lab.db").exists():
        leave_out_recordings(home)
    with (home / "server.log").open("wb") as log:
        started = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: started.poll() is not None or b"is ready" in (home / "server.log").read_bytes(), "start")
            assert started.poll() is None, (home / "server.log").read_text()
            yield started
        finally:
            started.kill()
            started.wait()


def carried_out(work: Coroutine[Any, Any, T]) -> T:
    """Its outcome, from a thread of its own: another test's loop may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
