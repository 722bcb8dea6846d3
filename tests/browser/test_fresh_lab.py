"""A lab with its own worker, as it is just after its start and while nobody uses it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from app.server.first_start import MARK
from storage.database import open_database
from storage.workers import list_workers
from tests.browser.conftest import PAGES, serving

pytestmark = pytest.mark.browser
MEASURED_SECONDS = 20.0
# Measured 0.6 % of a core on the two cores that the tests run on; Gradio's own pace alone would be over 3 %.
MOST_IDLE = 0.02


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab without anything to do."""
    home = tmp_path_factory.mktemp("fresh")
    (home / MARK).write_text("Not the first start: nothing is queued.\n")
    return home


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The address of a server over it, with its worker."""
    with serving(home, worker=True) as found:
        yield found


def test_no_page_says_that_there_is_no_worker(page: Page, address: str) -> None:
    page.goto(address)
    worker = page.locator(".worker")
    expect(worker).to_contain_text("Worker ready")
    assert "No worker" not in page.evaluate("workerWords"), "it was being started"
    for path in PAGES:
        page.goto(address + path)
        expect(worker).to_contain_text("Worker ready", timeout=9000)
        assert page.evaluate("workerWords") == ["Worker", "Worker ready"], path


def test_the_model_server_waits_for_the_first_question(page: Page, address: str) -> None:
    page.goto(f"{address}/ask")
    expect(page.locator(".server")).to_contain_text("starts with the first question")


def test_the_idle_lab_costs_next_to_nothing(home: Path, address: str) -> None:
    lab = psutil.Process(list_workers(open_database(home))[0].process.pid).parent()
    assert lab is not None
    processes = [lab, *lab.children(recursive=True)]
    time.sleep(5)  # what the start leaves to do, the chart library for one, is done then
    before = seconds_of(processes)
    time.sleep(MEASURED_SECONDS)
    share = (seconds_of(processes) - before) / MEASURED_SECONDS
    print(f"\nidle: {share:.2%} of a core")
    assert share < MOST_IDLE


def seconds_of(processes: list[psutil.Process]) -> float:
    """The processor time that they have taken so far."""
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)
