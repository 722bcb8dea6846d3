"""Checkpoints are whole or not there: after a kill, a full disk, a damaged file."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.models.folders import replaced, whole
from engine.models.loading import load_base, load_checkpoint, prepare_for_training
from engine.models.source import ModelError
from engine.training.checkpoint import is_complete, load_training_state, restore
from engine.training.loop import Trainer
from engine.training.sequences import stage1_sequences
from tests.unit.tiny_models import build_qwen2, tiny_experiment

# Saves for ever: every version has all weights equal to its number, which is also its step.
SAVER = """
import itertools, sys
from pathlib import Path
import torch
from tests.unit.test_training_checkpoint import a_trainer
model, folder = sys.argv[1:]
trainer = a_trainer(Path(model))
for number in itertools.count():
    with torch.no_grad():
        for p in trainer.parameters:
            p.fill_(number)
    trainer.step = number
    trainer.save(Path(folder))
    print(number, flush=True)
"""


def a_trainer(model: Path, tuning: str = "full") -> Trainer:
    """A trainer that has taken one step."""
    experiment = tiny_experiment(model, tuning={"method": tuning})
    loaded = prepare_for_training(load_base(experiment), experiment)
    trainer = Trainer(loaded, stage1_sequences(experiment, loaded), experiment.stage1, seed=0, stage="stage1")
    trainer._run_epoch(1, lambda _: None)
    trainer.epoch = 1
    return trainer


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    model, folder = build_qwen2(tmp_path), tmp_path / "run" / "checkpoint"
    rng = random.Random(0)
    for _ in range(2):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(model), str(folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert saver.stdout
        for _ in range(2):
            saver.stdout.readline()
        time.sleep(rng.random() / 20)
        saver.send_signal(signal.SIGKILL)
        written = saver.stdout.read().split()
        saver.wait()
        assert is_complete(folder)
        state = load_training_state(folder)
        assert state.step >= int(written[-1] if written else 1)
        loaded = load_checkpoint(tiny_experiment(model), folder)
        assert all((p == state.step).all() for p in loaded.model.parameters())
    a_trainer(model).save(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def version(folder: Path) -> str:
    """What the whole folder says in its file of that name."""
    found = whole(folder)
    assert found is not None
    return (found / "version").read_text()


def test_every_moment_of_a_replacement(tmp_path, monkeypatch):
    """Stop at each call that changes names or removes files; the folder is whole before and after every one."""
    folder = tmp_path / "folder"
    with replaced(folder) as new:
        (new / "version").write_text("1")
    for method in ("rename", "mkdir"):
        original = getattr(Path, method)

        def stopping(self, *args, original=original, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, method, stopping)
        with pytest.raises(KeyboardInterrupt), replaced(folder) as new:
            (new / "version").write_text("2")
        monkeypatch.setattr(Path, method, original)
        assert version(folder) == "1"
    # Killed between the two renames: the old version stands aside, the new one is not yet in place.
    (tmp_path / ".folder.new").mkdir(exist_ok=True)
    folder.rename(tmp_path / ".folder.old")
    assert version(folder) == "1"
    with replaced(folder) as new:
        assert list(new.iterdir()) == []
        (new / "version").write_text("3")
    assert (folder / "version").read_text() == "3"
    # Killed before the older version was removed.
    (tmp_path / ".folder.old").mkdir()
    with replaced(folder) as new:
        (new / "version").write_text("4")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_failed_write_keeps_the_old_version(tmp_path):
    folder = tmp_path / "folder"
    for version in ("1", "2"):
        try:
            with replaced(folder) as new:
                (new / "version").write_text(version)
                if version == "2":
                    raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            assert error.errno == errno.ENOSPC
    assert (folder / "version").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_an_os_error(tmp_path):
    """A limit on the size of files stands for the disk: both reach safetensors as a failed write."""
    trainer = a_trainer(build_qwen2(tmp_path))
    folder = tmp_path / "run" / "checkpoint"
    trainer.save(folder)
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, previous[1]))
        with pytest.raises(OSError, match="large") as caught:
            trainer.save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert is_complete(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_nothing_is_pickled(tmp_path, tuning):
    a_trainer(build_qwen2(tmp_path), tuning).save(tmp_path / "c")
    files = [p for p in (tmp_path / "c").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".json", ".safetensors", ".md"}
    # vLLM takes every *.safetensors beside a config.json for weights.
    expected = {"full": {"model.safetensors"}, "lora": {"adapter_model.safetensors", "key_rows.safetensors"}}
    assert {p.name for p in (tmp_path / "c").glob("*.safetensors")} == expected[tuning]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("file", ["weights", "training/optimizer.safetensors", "training/state.json"])
def test_damage_is_found(tmp_path, tuning, file):
    trainer = a_trainer(build_qwen2(tmp_path), tuning)
    trainer.save(tmp_path / "c")
    assert is_complete(tmp_path / "c")
    weights = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}[tuning]
    path = tmp_path / "c" / file.replace("weights", weights)
    path.write_bytes(path.read_bytes()[:20])
    assert not is_complete(tmp_path / "c")
    if file != "training/state.json":
        with pytest.raises(ModelError, match="does not fit or is damaged"):
            restore(load_training_state(tmp_path / "c"), trainer.loaded, trainer.optimizer)
    else:
        with pytest.raises(ModelError, match="is damaged: train it again"):
            load_training_state(tmp_path / "c")


def test_checkpoints_of_others(tmp_path):
    small, large = build_qwen2(tmp_path / "a"), build_qwen2(tmp_path / "b", hidden_size=32)
    a_trainer(small).save(tmp_path / "c")
    other = a_trainer(large)
    with pytest.raises(ModelError, match="does not fit or is damaged"):
        restore(load_training_state(tmp_path / "c"), other.loaded, other.optimizer)
    assert not is_complete(tmp_path / "nothing")
    with pytest.raises(ModelError, match="there is no checkpoint in"):
        load_training_state(tmp_path / "nothing")


def test_saving_changes_nothing(tmp_path):
    trainer = a_trainer(build_qwen2(tmp_path))
    before = [p.detach().clone() for p in trainer.parameters]
    state = torch.get_rng_state()
    trainer.save(tmp_path / "c")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))
