"""A model in bfloat16 is trained as the paper's code does it: in float32 meanwhile, rounded where it is kept."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, load_checkpoint, prepare_for_training
from engine.presets import load_preset
from engine.settings import Optimisation
from engine.training.checkpoint import MASTERS, OPTIMIZER, load_training_state
from engine.training.loop import StopTraining, Trainer, TrainingError, train
from engine.training.sequences import stage1_sequences
from tests.unit.tiny_models import build_llama, build_qwen2, tiny_experiment

RATE = 1e-5


CHOSEN: dict[str, dict[str, Any]] = {"all": {}, "layer": {"trained_layers": 1}, "keys": {"embeddings": "key tokens"}}


def prepared(experiment: Experiment, *, to_train: bool = False) -> LoadedModel:
    return prepare_for_training(load_base(experiment, to_train=to_train), experiment)


def run(loaded: LoadedModel, experiment: Experiment, settings: Optimisation, **options: Any) -> list[float]:
    losses: list[float] = []
    options = {"on_epoch": lambda *_: None, "on_step": lambda report: losses.append(report.loss), **options}
    train(loaded, stage1_sequences(experiment, loaded), settings, seed=1, stage="stage1", **options)
    return losses


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in loaded.model.named_parameters()}


class Last:
    """Takes the weights as they are while the model trains, at the end of each epoch."""

    def __call__(self, epoch: int, trainer: Trainer) -> None:
        self.weights = weights(trainer.loaded)


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """The share of the numbers in the layers' matrices that are others than before."""
    names = [name for name, weight in before.items() if weight.dim() == 2 and "embed" not in name]
    changed = sum(int((before[name].float() != after[name].float()).sum()) for name in names)
    return changed / sum(before[name].numel() for name in names)


def test_at_the_papers_rates_no_update_is_lost() -> None:
    settings = Optimisation(epochs=20, learning_rate=RATE, batch_size=8, loss="full")
    losses: dict[str, list[float]] = {}
    shares: dict[str, float] = {}
    for name, precision in (("float32", "float32"), ("masters", "bfloat16"), ("bfloat16", "bfloat16")):
        experiment = resolve(load_preset("quick").model_copy(update={"precision": precision}))
        loaded = prepared(experiment, to_train=name == "masters")
        before, last = weights(loaded), Last()
        losses[name] = run(loaded, experiment, settings, mixed=name == "masters", on_epoch=last)
        shares[name] = moved(before, last.weights)
        assert {str(p.dtype) for p in loaded.model.parameters()} == {f"torch.{precision}"}
    print(f"\nmoved: {shares}; last losses: { {name: found[-1] for name, found in losses.items()} }")
    assert shares["masters"] >= 0.99
    assert shares["bfloat16"] < 0.1, "what masters are for"
    curve = zip(losses["float32"], losses["masters"], strict=True)
    assert max(abs(a - b) / a for a, b in curve) < 0.01
    fallen = losses["float32"][0] - losses["float32"][-1]
    assert losses["bfloat16"][0] - losses["bfloat16"][-1] < 0.5 * fallen


@pytest.mark.parametrize("build", [build_qwen2, build_llama], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "chosen", [{}, {"trained_layers": 1}, {"embeddings": "key tokens"}], ids=["all", "layer", "keys"]
)
@pytest.mark.parametrize("start_from", ["base", "base as published", "checkpoint"])
def test_resumed_equals_undisturbed_bit_for_bit(
    tmp_path: Path, build: Any, chosen: dict[str, Any], start_from: str
) -> None:
    experiment = tiny_experiment(build(tmp_path), precision="bfloat16")
    settings = Optimisation(**{"epochs": 4, "learning_rate": 1e-3, "batch_size": 3, "loss": "full", **chosen})
    published = start_from == "base as published"  # in float32, of which bfloat16 holds not every digit
    undisturbed = prepared(experiment, to_train=published)
    last = Last()
    expected = run(undisturbed, experiment, settings, mixed=True, on_epoch=last)

    def save(epoch: int, trainer: Trainer) -> None:
        trainer.save(tmp_path / "c")
        if epoch == 2:
            raise StopTraining

    with pytest.raises(StopTraining):
        run(prepared(experiment, to_train=published), experiment, settings, mixed=True, on_epoch=save)
    assert (tmp_path / "c" / MASTERS).is_file()
    from_base, in_memory = start_from != "checkpoint", Last()
    fresh = prepared(experiment, to_train=published) if from_base else load_checkpoint(experiment, tmp_path / "c")
    start = load_training_state(tmp_path / "c")
    assert run(fresh, experiment, settings, mixed=True, start=start, on_epoch=in_memory) == expected[6:]
    assert all(torch.equal(weight, in_memory.weights[name]) for name, weight in last.weights.items())
    after = weights(fresh)
    assert all(torch.equal(weight, after[name]) for name, weight in weights(undisturbed).items())


eight_bits = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed (make test-torchao)"
)


@eight_bits
def test_weights_rounded_at_random_lose_no_step_in_the_mean(tmp_path: Path) -> None:
    """At a rate at which bfloat16 rounded to the nearest stands still."""
    losses: dict[str, list[float]] = {}
    for name, precision in (("adamw", "float32"), ("adamw 8-bit", "bfloat16"), ("nearest", "bfloat16")):
        experiment = tiny_experiment(build_llama(tmp_path / name, hidden_size=64), precision=precision)
        settings = Optimisation(epochs=60, learning_rate=3e-5, batch_size=4, loss="full", schedule="constant")
        optimizer = "adamw" if name == "nearest" else name
        losses[name] = run(prepared(experiment), experiment, settings, optimizer=optimizer)
    fallen = {name: found[0] - found[-1] for name, found in losses.items()}
    print(f"\nfallen by: {fallen}")
    assert fallen["adamw 8-bit"] == pytest.approx(fallen["adamw"], rel=0.2)
    assert fallen["nearest"] < 0.6 * fallen["adamw"]


@eight_bits
def test_moments_of_8_bits_are_kept_and_restored_bit_for_bit(tmp_path: Path) -> None:
    experiment = tiny_experiment(build_llama(tmp_path, hidden_size=64), precision="bfloat16")
    settings = Optimisation(epochs=4, learning_rate=1e-3, batch_size=3, loss="full")
    undisturbed = prepared(experiment)
    expected = run(undisturbed, experiment, settings, optimizer="adamw 8-bit")

    def save(epoch: int, trainer: Trainer) -> None:
        trainer.save(tmp_path / "c")
        if epoch == 2:
            raise StopTraining

    with pytest.raises(StopTraining):
        run(prepared(experiment), experiment, settings, optimizer="adamw 8-bit", on_epoch=save)
    kept = load_file(tmp_path / "c" / OPTIMIZER)
    assert {value.dtype for name, value in kept.items() if name.endswith("/codes")} == {torch.uint8}
    fresh = prepared(experiment)
    start = load_training_state(tmp_path / "c")
    assert run(fresh, experiment, settings, optimizer="adamw 8-bit", start=start) == expected[6:]
    after = weights(fresh)
    assert all(torch.equal(weight, after[name]) for name, weight in weights(undisturbed).items())


@pytest.mark.skipif(importlib.util.find_spec("torchao") is not None, reason="torchao is installed")
def test_without_torchao_it_is_said_what_to_do(tmp_path: Path) -> None:
    experiment = tiny_experiment(build_llama(tmp_path))
    with pytest.raises(TrainingError, match="make torchao"):
        run(prepared(experiment), experiment, experiment.stage1, optimizer="adamw 8-bit")


def test_what_is_kept_is_in_bfloat16_and_what_is_in_memory_equals_it(tmp_path: Path) -> None:
    experiment = tiny_experiment(build_qwen2(tmp_path), precision="bfloat16")
    loaded = prepared(experiment)
    buffers = {name: (b.dtype, b.clone()) for name, b in loaded.model.named_buffers()}
    settings = Optimisation(epochs=2, learning_rate=1e-3, batch_size=3, loss="full")

    def keep(epoch: int, trainer: Trainer) -> None:
        assert {p.dtype for p in trainer.loaded.model.parameters()} == {torch.float32}
        trainer.save(tmp_path / "c", kept=True)
        assert {p.dtype for p in trainer.loaded.model.parameters()} == {torch.float32}

    run(loaded, experiment, settings, mixed=True, on_epoch=keep)
    stored = load_file(tmp_path / "c" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "c" / "config.json").read_text())["dtype"] == "bfloat16"
    again = weights(load_checkpoint(experiment, tmp_path / "c"))
    assert all(torch.equal(weight, again[name]) for name, weight in weights(loaded).items())
    for name, buffer in loaded.model.named_buffers():
        assert buffer.dtype is buffers[name][0] and torch.equal(buffer, buffers[name][1]), name
