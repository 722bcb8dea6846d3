"""What a model of the hub takes to download, told before a run: right to the byte, in the background, or not at all."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from app.design import hub_sizes
from app.design.estimate import estimate_for
from app.design.hub_sizes import HubSizes
from app.shared.lab import Lab
from engine.corpus.resolve import resolve
from engine.models.hub import fetch
from engine.models.hub_size import download_size
from tests.loopback_hub import Hub, in_parts, made_large
from tests.unit.tiny_models import tiny_experiment

NAME = "someone/tiny"
PATIENCE_SECONDS = 60.0


def fetched_bytes() -> int:
    """Of all that a run downloads."""
    return sum(file.stat().st_size for file in fetch(NAME).iterdir())


def asked_about(hub: Hub) -> list[str]:
    """The models that somebody wanted to know of; the library also asks the hub other things."""
    return [line.split()[1].removeprefix("/api/models/") for line in hub.asked if "/api/models/" in line]


def told(sizes: HubSizes, name: str = NAME) -> str:
    """What is told once the question has ended, '' for no answer."""
    assert sizes.bytes_of(name) is None, "nobody was asked yet"
    sizes.look(name)
    end = time.monotonic() + PATIENCE_SECONDS
    while any(note.asking for note in sizes._notes.values()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return sizes.look(name)


@pytest.mark.parametrize("parts", [False, True])
def test_it_is_what_the_run_will_fetch_to_the_byte(hub: Hub, tmp_path: Path, parts: bool) -> None:
    folder = hub.models[NAME]
    if parts:
        in_parts(folder)
    for foreign in ("modeling_evil.py", "pytorch_model.bin", "README.md", "other.safetensors"):
        (folder / foreign).write_bytes(b"x" * 1000)
    (folder / "LICENSE").write_bytes(b"x" * 500)
    size = download_size(NAME)
    assert not (tmp_path / "cache").exists() and hub.sent() == [], "a question downloads nothing"
    assert size == fetched_bytes()
    assert download_size(NAME) == 0, "all is here"


def test_of_what_is_here_in_part_the_rest_is_counted(hub: Hub) -> None:
    folder = fetch(NAME)
    weights = folder / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    assert download_size(NAME) == (hub.models[NAME] / "model.safetensors").stat().st_size


def test_a_model_without_weights_that_are_read_has_no_size(hub: Hub) -> None:
    (hub.models[NAME] / "model.safetensors").rename(hub.models[NAME] / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        download_size(NAME)


def test_the_estimate_tells_it_once_the_hub_has(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_large(hub.models[NAME])
    lab, experiment, sizes = Lab(tmp_path / "home"), resolve(tiny_experiment(NAME)), HubSizes(os.environ)

    def row() -> str | None:
        return dict(estimate_for(lab, experiment, sizes).rows).get("Download")

    assert row() is None and hub.asked == [], "no name is asked about that may be half typed"
    sizes.look(NAME)
    end = time.monotonic() + PATIENCE_SECONDS
    while not sizes.look(NAME):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert (said := row()) and said.startswith("40 MB before it trains, of ") and said.endswith(" free")
    asked = len(hub.asked)
    assert told_again(sizes) and len(hub.asked) == asked, "what was told is kept"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert "more than the 1 MB free in" in (row() or "") and "put HF_HOME elsewhere" in (row() or "")
    fetch(NAME)
    assert row() is None


def told_again(sizes: HubSizes) -> str:
    """What a second look is told, after time for a question."""
    first = sizes.look(NAME)
    time.sleep(0.3)
    return first and sizes.look(NAME)


def test_a_slow_hub_keeps_nobody_waiting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.thinks = 30.0
    monkeypatch.setattr(hub_sizes, "MOST_SECONDS", 4.0)
    sizes = HubSizes(os.environ)
    began = time.monotonic()
    assert sizes.bytes_of(NAME) is None and sizes.look(NAME) == "" and sizes.look(NAME) == ""
    assert time.monotonic() - began < 1
    while sizes._notes[NAME].asking:
        assert time.monotonic() - began < PATIENCE_SECONDS / 2
        time.sleep(0.02)
    assert sizes.look(NAME) == "" and sizes.bytes_of(NAME) is None


def test_a_hub_that_is_gone_is_not_asked_again_at_once_and_what_it_told_stays(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = HubSizes(os.environ)
    hub.down = True
    assert told(sizes) == "" and asked_about(hub) == [NAME]
    assert told_again(sizes) == "" and asked_about(hub) == [NAME]
    hub.down = False
    sizes._notes[NAME].due = 0.0
    assert int(told(sizes)) == download_size(NAME)
    hub.down, sizes._notes[NAME].due = True, 0.0
    before = len(asked_about(hub))
    sizes.look(NAME)
    while sizes._notes[NAME].asking:
        time.sleep(0.02)
    assert len(asked_about(hub)) == before + 1 and sizes.bytes_of(NAME) == int(sizes.look(NAME)) > 0


def test_of_a_gated_model_the_size_is_told_where_the_hub_tells_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_right"
    whole = sum((hub.models[NAME] / name).stat().st_size for name in ("model.safetensors", "config.json"))
    assert int(told(HubSizes(os.environ))) > whole
    in_parts(hub.models[NAME])  # which files these are stands in one that is gated
    assert told(HubSizes(os.environ)) == ""
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert int(told(HubSizes(os.environ))) > whole


@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "yes"}, None])
def test_where_the_network_is_forbidden_nobody_is_asked(hub: Hub, offline: dict[str, str] | None) -> None:
    sizes = HubSizes(None if offline is None else {**os.environ, **offline})
    assert told(sizes) == "" and hub.asked == []


def test_only_models_of_the_hub_that_are_not_here_are_asked_about(hub: Hub, tmp_path: Path) -> None:
    sizes = HubSizes(os.environ)
    for model in ("embedded", "gemma-3-270m", str(hub.models[NAME]), "no/such/folder", "", "half typed", "a/b/c"):
        assert told(sizes, model) == ""
    assert told(sizes, "someone/else") == "" and asked_about(hub) == ["someone/else"]
    for number in range(300):
        sizes.bytes_of(f"someone/model-{number}")
    assert len(sizes._notes) == hub_sizes.MOST_KEPT
