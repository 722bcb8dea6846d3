"""Folders of tiny models that several files of tests damage, each a copy of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.unit.tiny_models import BUILDERS  # loads torch, which most tests here do without

    return {name: build(tmp_path_factory.mktemp(name)) for name, build in BUILDERS.items() if name != "phi3"}


@pytest.fixture
def folder(sources: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(sources["llama"], tmp_path / "llama")
