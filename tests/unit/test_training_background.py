"""Checkpoints written beside the training: what is written is the moment of the call. A processor stands for a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.models.loading import LoadedModel, load_base, prepare_for_training
from engine.settings import Optimisation
from engine.training import checkpoint, loop
from engine.training.checkpoint import load_training_state
from engine.training.loop import Trainer, train
from engine.training.sequences import stage1_sequences
from tests.integration.measures import files_of
from tests.unit.tiny_models import BUILDERS, tiny_experiment

SETTINGS: dict[str, Any] = {"epochs": 4, "learning_rate": 1e-3, "batch_size": 3, "loss": "full"}


def trained(
    folder: Path, on_epoch: Callable[[int, Trainer], Any], start: Path | None = None, **chosen: Any
) -> tuple[LoadedModel, list[float]]:
    experiment = tiny_experiment(folder, precision="bfloat16")
    loaded, losses = prepare_for_training(load_base(experiment), experiment), []
    train(
        loaded, stage1_sequences(experiment, loaded), Optimisation(**SETTINGS | chosen), seed=1, stage="stage1",
        on_step=lambda report: losses.append(report.loss), on_epoch=on_epoch, mixed=True,
        start=load_training_state(start) if start else None,
    )  # fmt: skip
    return loaded, losses


def save_second_epoch_to(folder: Path) -> Callable[[int, Trainer], None]:
    def on_epoch(epoch: int, trainer: Trainer) -> None:
        if epoch == 2:
            trainer.save(folder)

    return on_epoch


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("chosen", [{}, {"embeddings": "key tokens"}], ids=["all", "keys"])
def test_what_is_written_later_is_the_moment_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chosen: dict[str, Any]
) -> None:
    model = BUILDERS[name](tmp_path)
    _, expected = trained(model, save_second_epoch_to(tmp_path / "at once"), **chosen)
    write, late = checkpoint._write, threading.Event()

    def write_late(*arguments: Any) -> None:
        assert late.wait(60)
        write(*arguments)

    def on_epoch(epoch: int, trainer: Trainer) -> None:
        save_second_epoch_to(tmp_path / "beside")(epoch, trainer)
        if epoch == 4:
            assert not (tmp_path / "beside").exists()
            late.set()

    monkeypatch.setattr(loop, "is_worth_it", lambda loaded: True)
    monkeypatch.setattr(checkpoint, "_write", write_late)
    _, losses = trained(model, on_epoch, **chosen)
    assert losses == expected
    one, other = tmp_path / "at once", tmp_path / "beside"
    assert files_of(one) == files_of(other)
    assert [f for f in files_of(one) if (one / f).read_bytes() != (other / f).read_bytes()] == []
    _, resumed = trained(model, lambda *_: None, start=other, **chosen)
    assert resumed == expected[len(expected) // 2 :]


def test_a_full_disk_is_said_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    said: list[int] = []

    def on_epoch(epoch: int, trainer: Trainer) -> None:
        try:
            trainer.save(tmp_path / "c")
        except OSError:
            said.append(epoch)
            raise

    monkeypatch.setattr(loop, "is_worth_it", lambda loaded: True)
    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        trained(BUILDERS["llama"](tmp_path), on_epoch)
    assert said == [2]
    with pytest.raises(OSError, match="No space left"):
        trained(BUILDERS["qwen2"](tmp_path), lambda e, t: t.save(tmp_path / "c") if e == 4 else None)
