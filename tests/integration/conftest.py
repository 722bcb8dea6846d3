"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.lab import SMALL, Lab
from tests.integration.page import Here, served_here


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab of this test's own."""
    made = Lab(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    """A lab with the small experiment run to its end in peace, and that run's id."""
    made = Lab(tmp_path_factory.mktemp("undisturbed"))
    run = made.queue(SMALL)
    worker = made.worker("--once")
    worker.wait()
    assert made.run(run.id).state == "done", made.run(run.id).error
    yield made, run.id
    made.close()


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """The page, served by this process."""
    with served_here(tmp_path_factory.mktemp("page") / "home") as served:
        yield served
