"""One cluster of two nodes for all tests; `use_token` must come before Ray is imported, so this file imports none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.lab import Lab
from tests.ray.cluster import Machines, use_token


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    use_token(tmp_path_factory.mktemp("nodes"))
    machines = Machines(2)
    yield machines
    machines.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "home")
    yield lab
    lab.close()
