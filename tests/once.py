"""What several test files need and none changes: made by the test process that comes first, taken by the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that all test processes of this session see."""
    mine = factory.getbasetemp()
    return mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """The folder `place`, filled by `make` the first time. What `make` opens there it must close: others copy it."""
    with FileLock(place.with_name(f"{place.name}.lock")):
        if not place.is_dir():
            unfinished = place.with_name(f"{place.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of one that failed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(place)
    return place
