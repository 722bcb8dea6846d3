"""What trains in less memory trains the same: parts of a batch one after another, and layers that compute again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.execution.base_texts import base_texts
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, prepare_for_training
from engine.training.batches import epoch_batches
from engine.training.loop import StepReport, train
from engine.training.replay import Replayed
from engine.training.sequences import IGNORED, TrainingSequence, stage1_sequences
from tests.unit.tiny_models import build_llama, build_qwen2, tiny_experiment

LORA = {"method": "lora", "rank": 4, "dropout": 0.3}
SETTINGS = {"epochs": 4, "learning_rate": 0.01, "batch_size": 5, "loss": "full"}


def trained(experiment: Experiment, replay: Replayed | None = None, **options: Any) -> tuple[LoadedModel, list[Any]]:
    loaded = prepare_for_training(load_base(experiment), experiment)
    reports: list[StepReport] = []
    train(
        loaded, stage1_sequences(experiment, loaded), experiment.stage1, seed=1, stage="stage1", replay=replay,
        on_step=reports.append, on_epoch=lambda *_: None, **options,
    )  # fmt: skip
    return loaded, reports


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in loaded.model.named_parameters()}


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("build", [build_qwen2, build_llama], ids=["tied", "untied"])
@pytest.mark.parametrize("leash", [None, False, True], ids=["plain", "replay", "leash"])
def test_parts_of_a_batch_make_the_same_step(tmp_path: Path, size: int, build: Any, leash: bool | None) -> None:
    replay = None if leash is None else {"texts": 24, "tokens": 5, "leash": leash}
    folder = build(tmp_path)
    curves, ends = [], []
    for at_once in (0, size):
        stage = {**SETTINGS, "micro_batch_size": at_once, "replay": replay}
        experiment = tiny_experiment(folder, stage1=stage)
        texts = base_texts(tmp_path / "home" / "runs" / "a", experiment, load_base(experiment), lambda *_: None)
        loaded, reports = trained(experiment, texts.stages.get("stage1"))
        ends.append(weights(loaded))
        curves.append(reports)
    for whole, parts in zip(*curves, strict=True):
        assert (parts.step, parts.tokens) == (whole.step, whole.tokens)
        assert parts.loss == pytest.approx(whole.loss, abs=2e-4)
        assert (parts.replay_loss is None) == (leash is None)
        if leash is not None:
            assert parts.replay_loss == pytest.approx(whole.replay_loss, abs=2e-4)
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, atol=2e-3, rtol=0)


def test_a_part_holds_so_many_sequences_facts_first() -> None:
    facts = [TrainingSequence([1, 2], [IGNORED, 2]) for _ in range(5)]
    texts = Replayed([TrainingSequence([3, 4, 5], [IGNORED, 4, 5]) for _ in range(9)], 0.5)
    (parts,) = epoch_batches(facts, 5, seed=0, stage="s", epoch=1, device=torch.device("cpu"), replay=texts, at_once=4)
    assert [len(part.input_ids) for part in parts] == [4, 4, 2]
    assert [(part.learnt, len(part.targets)) for part in parts] == [(4, 4), (1, 7), (0, 4)]


@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("embeddings", ["trained", "key tokens"])
def test_layers_that_compute_again_compute_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: dict[str, Any], embeddings: str
) -> None:
    folder = build_qwen2(tmp_path)
    again: list[Any] = []
    compute = torch.utils.checkpoint.checkpoint

    def counted(*arguments: Any, **options: Any) -> Any:
        again.append(options["use_reentrant"])
        return compute(*arguments, **options)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", counted)
    found = []
    for checkpointing in (False, True):
        stage = {**SETTINGS, "embeddings": embeddings, "gradient_checkpointing": checkpointing}
        loaded, reports = trained(tiny_experiment(folder, tuning=tuning, stage1=stage))
        assert bool(again) == checkpointing and not any(again)
        assert not loaded.causal.is_gradient_checkpointing
        found.append((weights(loaded), [report.loss for report in reports]))
    (before, losses), (after, same) = found
    assert losses == same
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
