"""What several files of tests share: folders of tiny models to damage, each a copy of its own; a home for models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.models.catalogue import use_home


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.unit.tiny_models import BUILDERS  # loads torch, which most tests here do without

    return {name: build(tmp_path_factory.mktemp(name)) for name, build in BUILDERS.items() if name != "phi3"}


@pytest.fixture
def folder(sources: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(sources["llama"], tmp_path / "llama")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab's home for models, of this test alone."""
    monkeypatch.setattr("engine.models.catalogue._home", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use_home(tmp_path / "home")
    return tmp_path / "home"
