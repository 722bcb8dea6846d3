"""Models of the hub, downloaded from a small hub on this machine: whole, in parts, gated, cut off, begun again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from engine.models import hub as hub_module
from engine.models.files import find_folder
from engine.models.hub import fetch, is_fetched, is_to_fetch
from engine.models.loading import load_base, load_checkpoint, save_model
from engine.models.source import ModelError
from tests.loopback_hub import Hub, in_parts, made_large
from tests.unit.tiny_models import tiny_experiment

NAME = "someone/tiny"
SOON = (0.1, 0.1)


@pytest.fixture
def large(hub: Hub) -> int:
    """Makes the model a large one; gives the bytes of its weights."""
    return (made_large(hub.models[NAME]) / "model.safetensors").stat().st_size


def parts_of_files(cache: Path) -> list[Path]:
    return list(cache.rglob("*.incomplete"))


def test_a_model_is_downloaded_once_with_nothing_but_what_is_read(hub: Hub, tmp_path: Path) -> None:
    for foreign in ("modeling_evil.py", "pytorch_model.bin", "README.md", "other.safetensors"):
        (hub.models[NAME] / foreign).write_bytes(b"x" * 1000)
    said: list[tuple[str, int, int]] = []
    assert is_to_fetch(NAME)
    folder = fetch(NAME, lambda *told: said.append(told))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"} | {
        path.name for path in hub.models[NAME].iterdir() if path.name in hub_module.SETTINGS
    }
    assert find_folder(NAME) == folder and not is_to_fetch(NAME)
    assert said[0][0] == "Asking the hub for the model"
    before = len(hub.asked)
    fetch(NAME)
    loaded = load_base(tiny_experiment(NAME))
    assert len(hub.asked) == before, "what is here is not asked for again"
    own = load_base(tiny_experiment(str(hub.models[NAME])))
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), own.model.parameters(), strict=True))


def test_the_terms_of_a_model_come_with_it_and_travel_on(hub: Hub, tmp_path: Path) -> None:
    terms = {"LICENSE.txt": b"some licence", "USE_POLICY.md": b"some policy"}
    for name, text in terms.items():
        (hub.models[NAME] / name).write_bytes(text)
    experiment = tiny_experiment(NAME)
    save_model(load_base(experiment), tmp_path / "memorised")
    save_model(load_checkpoint(experiment, tmp_path / "memorised"), tmp_path / "generalised")
    for folder in (tmp_path / "memorised", tmp_path / "generalised"):
        assert {name: (folder / name).read_bytes() for name in terms} == terms


def test_the_bytes_of_a_slow_download_are_told(hub: Hub, large: int) -> None:
    size, hub.bytes_a_second = large, large // 2
    said: list[tuple[str, int, int]] = []
    fetch(NAME, lambda *told: said.append(told))
    told = [(done, total) for _, done, total in said if total]
    assert {total for _, total in told} == {size}
    assert sorted(done for done, _ in told) == [done for done, _ in told]
    assert any(0 < done < size for done, _ in told), "some of it, at some moment"
    assert any("MB" in words for words, _, total in said if total)


def test_a_model_in_parts_goes_on_from_the_parts_that_came_whole(hub: Hub, tmp_path: Path) -> None:
    in_parts(hub.models[NAME])
    first, second = sorted(hub.models[NAME].glob("model-*.safetensors"))
    aside = second.rename(tmp_path / second.name)
    with pytest.raises(ModelError, match=r"does not have all that ‘someone/tiny’ needs.*1 of 2 files missing"):
        fetch(NAME, pauses=())
    shutil.move(aside, second)
    shutil.rmtree(tmp_path / "cache" / "models--someone--tiny" / "trees", ignore_errors=True)
    folder = fetch(NAME)
    assert is_fetched(NAME) and (folder / second.name).is_file()
    assert len(hub.sent(first.name)) == 1


def test_a_cache_that_lacks_the_tokenizer_gets_it(hub: Hub) -> None:
    folder = fetch(NAME)
    (folder / "tokenizer.json").unlink()  # as other programs leave it, which fetched what they needed
    assert is_to_fetch(NAME)
    assert (fetch(NAME) / "tokenizer.json").is_file() and len(hub.sent()) == 1
    (folder / "tokenizer.json").unlink()
    (hub.models[NAME] / "tokenizer.json").unlink()
    shutil.rmtree(folder.parents[1] / "trees", ignore_errors=True)
    with pytest.raises(ModelError, match=r"does not have all that ‘someone/tiny’ needs.*the model needs its tokenizer"):
        fetch(NAME, pauses=())


def test_a_lost_connection_is_taken_up_where_it_was_lost(hub: Hub, large: int) -> None:
    hub.cuts = 2
    fetch(NAME)
    sent = [int(line.split()[2]) for line in hub.sent()]
    assert sent[0] == 0 and len(sent) == 3 and 0 < sent[1] < sent[2]
    load_base(tiny_experiment(NAME))


def test_a_hub_that_is_down_is_asked_again_and_then_told_of(hub: Hub) -> None:
    hub.down = True
    said: list[str] = []
    with pytest.raises(ModelError, match=r"cannot be downloaded from http://127\.0\.0\.1:.*: check the connection"):
        fetch(NAME, lambda words, *_: said.append(words), pauses=SOON)
    assert any("trying again" in words for words in said)

    def comes_back(words: str, *_: int) -> None:
        hub.down = hub.down and "trying again" not in words

    fetch(NAME, comes_back, pauses=SOON)
    assert is_fetched(NAME)


def test_ended_by_whoever_waits_it_leaves_no_part_and_begins_again(hub: Hub, large: int, tmp_path: Path) -> None:
    hub.bytes_a_second = large // 3

    class Enough(Exception):
        """What a person's Stop raises."""

    def stop(words: str, done: int, total: int) -> None:
        if done:
            raise Enough

    with pytest.raises(Enough):
        fetch(NAME, stop)
    assert not is_fetched(NAME) and parts_of_files(tmp_path / "cache") == []
    # One that was killed with the machine left a part, long ago; another process writes one now.
    blobs = tmp_path / "cache" / "models--someone--tiny" / "blobs"
    old, new = blobs / "aa.1.incomplete", blobs / "bb.2.incomplete"
    for part in (old, new):
        part.write_bytes(b"part")
    os.utime(old, (1, 1))
    hub.bytes_a_second = 0
    fetch(NAME)
    assert parts_of_files(tmp_path / "cache") == [new]


def test_two_who_want_the_same_model_download_it_once(hub: Hub, large: int) -> None:
    hub.bytes_a_second = large // 2
    said: dict[str, list[str]] = {"first": [], "second": []}
    begun = threading.Event()

    def told(who: str, words: str) -> None:
        said[who].append(words)
        if words.startswith("Downloading"):
            begun.set()

    def get(who: str) -> Path:
        if who == "second":
            assert begun.wait(30)
        return fetch(NAME, lambda words, *_: told(who, words))

    with ThreadPoolExecutor(2) as people:
        first, second = people.map(get, said)
    assert first == second and len(hub.sent()) == 1
    assert set(said["second"]) == {"Another run downloads the model"}


def test_where_the_first_who_wanted_it_stops_the_second_downloads_it(hub: Hub, large: int) -> None:
    hub.bytes_a_second = large // 2
    begun = threading.Event()

    class Enough(Exception):
        """What a person's Stop raises."""

    def stop(words: str, done: int, total: int) -> None:
        if done:
            begun.set()
            time.sleep(1)  # in which the other one waits
            raise Enough

    def get() -> Path:
        assert begun.wait(30)
        hub.bytes_a_second = 0
        return fetch(NAME)

    with ThreadPoolExecutor(1) as person:
        second = person.submit(get)
        with pytest.raises(Enough):
            fetch(NAME, stop)
        assert (second.result() / "model.safetensors").stat().st_size == large


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "is gated: accept its terms on http://127.0.0.1:.*/someone/tiny, then start the lab with"),
        ("hf_another", "is gated, and the account of HF_TOKEN may not read it"),
    ],
)
def test_a_gated_model_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, words: str) -> None:
    hub.token = "hf_right"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError, match=words) as raised:
        fetch(NAME)
    assert "hf_" not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    fetch(NAME)
    assert is_fetched(NAME)


def test_models_that_cannot_be_had_say_why(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="‘someone/else’ is not on the hub, or is private"):
        fetch("someone/else")
    (hub.models[NAME] / "model.safetensors").rename(hub.models[NAME] / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no weights in safetensors format"):
        fetch(NAME)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE=1 keeps the lab off the network"):
        fetch("someone/new")
    assert not any("/else/resolve" in line or "someone/new" in line for line in hub.asked)


def test_a_disk_that_is_too_small_is_told_before(hub: Hub) -> None:
    code = (
        "import os, shutil, sys; shutil.disk_usage = lambda _: type('Usage', (), {'free': 10})\n"
        "from engine.models import hub; sys.argv += ['someone/tiny', '--parent', str(os.getppid())]; hub.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "make room there" in json.loads(done.stdout)["error"]
    assert hub.sent() == []
