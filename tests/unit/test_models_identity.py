"""A base is the base by every byte of its weights; and one that is gone is said to be gone, not to be another."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from io import BufferedReader
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.models import fingerprint, identity
from engine.models.files import located
from engine.models.fingerprint import known_fingerprint
from engine.models.identity import base_key, former_key, is_base, note_base
from engine.models.loading import load_base, load_checkpoint, prepare_for_training, save_model
from engine.models.source import ModelError
from engine.serving.embedded.catalogue import Catalogue
from engine.serving.prepared import prepare_base
from engine.serving.served import prepared_folder
from storage.folders import checkpoint_folder, run_folder
from tests.unit.serving_home import CHECKPOINTS, add_run, models_of, reference
from tests.unit.tiny_models import build_qwen2, tiny_experiment

LORA = {"method": "lora", "rank": 4}


@pytest.fixture(autouse=True)
def all_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a large one; what is remembered lies in a folder of the test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "LARGE", 0)
    monkeypatch.setattr(identity, "HASHED_BYTES", 1000)
    monkeypatch.setattr(identity, "PART_BYTES", 16)
    monkeypatch.setattr(identity, "PARTS", 2)


def flip(file: Path, place: int, *, hide: bool = False) -> None:
    """Change one byte; `hide`: and give the file the time of change that it had."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte[0] ^ 1]))
    if hide:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def aged(folder: Path) -> None:
    """Wait until nobody can have changed a file of the folder within the same tick of the clock."""
    newest = max(path.stat().st_ctime for path in folder.iterdir())
    time.sleep(max(0.0, newest + fingerprint.SAME_TIME_SECONDS - time.time() + 0.01))


def test_every_byte_of_the_weights_counts(tmp_path: Path) -> None:
    folder = build_qwen2(tmp_path)
    experiment = tiny_experiment(folder)
    key, former = base_key(experiment), former_key(experiment)
    assert is_base(key, experiment)
    assert is_base(former, experiment), "as labs of before noted it"
    size = (folder / "model.safetensors").stat().st_size
    for place in (size // 3, size // 2, size - 40):
        flip(folder / "model.safetensors", place, hide=True)
        assert former_key(experiment) == former, "between the parts that labs of before looked at"
        assert not is_base(key, experiment)
        flip(folder / "model.safetensors", place)
    assert base_key(experiment) == key


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"])
def test_settings_and_tokenizer_count(tmp_path: Path, name: str) -> None:
    folder = build_qwen2(tmp_path)
    (folder / "vocab.json").write_text("{}")
    before = base_key(tiny_experiment(folder))
    (folder / name).write_text((folder / name).read_text() + " ")
    assert base_key(tiny_experiment(folder)) != before


def test_a_large_file_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_qwen2(tmp_path)
    weights = folder / "model.safetensors"
    monkeypatch.setattr(fingerprint, "SAME_TIME_SECONDS", 3600)
    fresh = base_key(tiny_experiment(folder))
    assert known_fingerprint(weights) is None, "it may have changed again within the same tick"
    monkeypatch.setattr(fingerprint, "SAME_TIME_SECONDS", 0.1)
    aged(folder)
    read: list[Path] = []
    of_file = fingerprint._read

    def reading(path: Path) -> str:
        read.append(path)
        return of_file(path)

    monkeypatch.setattr(fingerprint, "_read", reading)
    assert [base_key(tiny_experiment(folder)) for _ in range(3)] == [fresh] * 3
    assert sum(path.name == weights.name for path in read) == 1
    fingerprint._here.clear()  # as in another process
    assert base_key(tiny_experiment(folder)) == fresh
    assert sum(path.name == weights.name for path in read) == 1
    aged(folder)
    flip(weights, 5000, hide=True)
    assert known_fingerprint(weights) is None
    assert is_base(fresh, tiny_experiment(folder), unread=True), "a page does not wait for gigabytes"
    assert not is_base(fresh, tiny_experiment(folder))
    fingerprint._cache().write_text("{")
    fingerprint._here.clear()
    assert base_key(tiny_experiment(folder)) != fresh


def test_an_adapter_on_a_base_with_other_norms_is_refused(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", build_qwen2(tmp_path)
    add_run(home, "aaaa", folder, "lora")
    prepared = Catalogue(home).find("aaaa/base").folder
    assert reference(home, "aaaa", "memorised@4").base == prepared.name
    tensors = load_file(folder / "model.safetensors")
    changed = {n: t * 1.5 if "layernorm" in n else t for n, t in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    assert Catalogue(home).find("aaaa/base").folder == prepared, "the base it was trained on lies in the home"
    shutil.rmtree(prepared)
    for name in ("memorised@4", "base"):
        with pytest.raises(ModelError, match="run aaaa was trained on other weights"):
            Catalogue(home).find(f"aaaa/{name}")
    with pytest.raises(ModelError, match="was trained on other weights of the base model"):
        reference(home, "aaaa", "memorised@4")


def test_a_key_of_a_lab_of_before_is_known(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", build_qwen2(tmp_path)
    add_run(home, "aaaa", folder, "lora")
    experiment = tiny_experiment(folder)
    old = former_key(experiment)
    for name in CHECKPOINTS:
        note_base(checkpoint_folder(run_folder(home, "aaaa"), name), old)
    assert {m.lost for m in models_of(home, "aaaa").values()} == {""}
    assert Catalogue(home).find("aaaa/base").folder == prepared_folder(home, old)
    reference(home, "aaaa", "memorised@4")
    edited = (folder / "config.json").read_text().replace("{", "{ ", 1)
    (folder / "config.json").write_text(edited)
    with pytest.raises(ModelError, match="the run began from other weights"):
        prepare_base(tmp_path / "other", experiment, old)


def test_a_base_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", build_qwen2(tmp_path)
    add_run(home, "aaaa", folder, "lora")
    folder.rename(tmp_path / "moved")
    words = "the folder ‘.*qwen2’ with the weights of its base is not there: put it back"
    for model in models_of(home, "aaaa").values():
        assert "is not there: put it back" in model.lost
        assert "trained again" not in model.lost
    with pytest.raises(ModelError, match=words):
        Catalogue(home).find("aaaa/memorised@4")
    with pytest.raises(ModelError, match=words):
        reference(home, "aaaa", "memorised@4")
    (tmp_path / "moved").rename(folder)
    assert {m.lost for m in models_of(home, "aaaa").values()} == {""}


def test_a_relative_folder_is_absolute_in_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_qwen2(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("models/qwen2", "./models/qwen2", "models/../models/qwen2/", "~/models/qwen2"):
        assert located(tiny_experiment(name)).model == str(folder)
    for name in ("embedded", "models/gpt2", "./nowhere"):
        assert located(tiny_experiment(name)).model == name


def test_a_model_of_the_hub_is_known_by_its_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    experiment = tiny_experiment("someone/tiny", tuning=LORA)
    by_name = base_key(experiment)
    cached = tmp_path / "models--someone--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a1")
    (cached / "snapshots").mkdir()
    build_qwen2(tmp_path).rename(cached / "snapshots" / "a1")
    key = base_key(experiment)
    assert key != by_name == former_key(experiment)
    loaded = prepare_for_training(load_base(experiment), experiment)
    assert loaded.base == key
    save_model(loaded, tmp_path / "saved")
    load_checkpoint(experiment, tmp_path / "saved")
    # The hub has another version now.
    shutil.copytree(cached / "snapshots" / "a1", cached / "snapshots" / "b2")
    (cached / "refs" / "main").write_text("b2")
    assert is_base(key, experiment)
    weights = cached / "snapshots" / "b2" / "model.safetensors"
    save_file({n: t + torch.ones(1) for n, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert not is_base(key, experiment)
    with pytest.raises(ModelError, match="was trained on other weights"):
        load_checkpoint(experiment, tmp_path / "saved")
    shutil.rmtree(cached / "snapshots")
    assert is_base(key, experiment), "what is fetched will be compared"


def test_what_changes_while_it_is_read_is_not_remembered_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    read = hashlib.file_digest

    def and_then_it_changes(file: BufferedReader, name: str) -> object:
        found = read(file, name)
        path.write_bytes(b"other")
        return found

    monkeypatch.setattr(hashlib, "file_digest", and_then_it_changes)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3600)  # the disk's is behind
    assert fingerprint.fingerprint(path) == hashlib.sha256(b"old").hexdigest()
    assert known_fingerprint(path) is None
