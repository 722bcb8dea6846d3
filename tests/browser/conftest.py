"""A real server on a free port, a real Chromium, and a home folder that is thrown away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from sqlite_utils import Database

from storage.database import open_database
from tests.once import shared_folder
from tests.recordings import leave_out_recordings

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
READY_SECONDS = 180
LEAVING_SECONDS = 1.0
# Of a click or a typed text, where three tests and their trainings share two cores: a page may not draw for a while.
PATIENCE_MILLISECONDS = 120_000
# What the header has said of the worker since the page was opened: `window.workerWords`.
WORKER_WORDS = """window.workerWords = [];
    new MutationObserver(() => {
        const words = document.querySelector('.lab.top .worker')?.textContent.replace(/[○●]/, '').trim();
        if (words && words !== workerWords.at(-1)) workerWords.push(words);
    }).observe(document, { childList: true, subtree: true, characterData: true });"""
PAGES = ("/", "/design", "/runs", "/run?run=0", "/results", "/ask", "/attack")
# Patience for a machine that does other things at the same time.
expect.set_options(timeout=60_000)
REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(home: Path, worker: bool = False, **environment: str) -> Iterator[str]:
    """`python -m app` over a home folder, with or without a worker; yields its address once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "app", "--home", str(home), "--port", str(port)]
    command += [] if worker else ["--no-worker"]
    home.mkdir(parents=True, exist_ok=True)
    leave_out_recordings(home)
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=os.environ | environment)
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(address, process, home / "server.log")
            yield address
        finally:
            process.terminate()
            process.wait(20)


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers; fail with its output when it ends or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not answer:\n{log.read_text()}")


@pytest.fixture(scope="session")
def lab_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of the session's server: everything that tests store goes there."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def address(lab_home: Path) -> Iterator[str]:
    """The address of one server for all tests of the session."""
    with serving(lab_home) as found:
        yield found


@pytest.fixture
def db(lab_home: Path, address: str) -> Database:
    """The server's database, without any run left by an earlier test."""
    database = open_database(lab_home)
    with database.conn:
        database.conn.execute("delete from runs")
        database.conn.execute("delete from attacks")
        database.conn.execute("delete from workers")
        database.conn.execute("delete from askings")
    shutil.rmtree(lab_home / "runs", ignore_errors=True)
    return database


@pytest.fixture(scope="session")
def shared_attack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small attack is measured once for all test processes."""
    return shared_folder(tmp_path_factory) / "small-attack"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of the session; without one on the machine they are skipped, and say so."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGUMENTS)
        made = browser.new_context

        def patient(**settings: Any) -> BrowserContext:
            context = made(**settings)
            context.set_default_timeout(PATIENCE_MILLISECONDS)
            return context

        setattr(browser, "new_context", patient)  # noqa: B010 - of this one instance
        setattr(browser, "new_page", lambda **settings: patient(**settings).new_page())  # noqa: B010
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh profile."""
    found = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield found
    found.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """A page whose console errors and requests to other hosts fail the test."""
    found = context.new_page()
    problems: list[str] = []
    cut_off: list[tuple[float, str]] = []
    # Leaving a page aborts the requests it still waits for, and Gradio's client lets that error through, or logs it.
    found.on("pageerror", lambda error: None if error.name == "AbortError" else problems.append(str(error)))

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and "Connection errored out" in message.text:
            cut_off.append((time.monotonic(), message.text))
        elif message.type == "error" and not message.text.startswith("AbortError:"):
            problems.append(message.text)

    def on_request(request: Request) -> None:
        if request.is_navigation_request():  # the error of what it aborts is told just before it
            cut_off[:] = [(at, text) for at, text in cut_off if time.monotonic() - at > LEAVING_SECONDS]
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(f"asked for {request.url}")

    found.on("console", on_console)
    found.on("request", on_request)
    found.add_init_script(WORKER_WORDS)
    yield found
    assert [*problems, *(text for _, text in cut_off)] == []
