"""What several files of tests share: folders of tiny models to damage, each a copy of its own; a small hub; a home for
models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.models.catalogue import use_home

if TYPE_CHECKING:
    from tests.loopback_hub import Hub


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.unit.tiny_models import BUILDERS  # loads torch, which most tests here do without

    return {name: build(tmp_path_factory.mktemp(name)) for name, build in BUILDERS.items() if name != "phi3"}


@pytest.fixture
def folder(sources: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(sources["llama"], tmp_path / "llama")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, ‘someone/tiny’, and an empty cache."""
    from tests.loopback_hub import loopback_hub
    from tests.unit.tiny_models import build_qwen2

    with loopback_hub({"someone/tiny": build_qwen2(tmp_path)}) as found:
        cache = str(tmp_path / "cache")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.address)
        address = f"{found.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address)
        for name, value in {"HF_HUB_CACHE": cache, "HF_ENDPOINT": found.address, "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab's home for models, of this test alone."""
    monkeypatch.setattr("engine.models.catalogue._home", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use_home(tmp_path / "home")
    return tmp_path / "home"
