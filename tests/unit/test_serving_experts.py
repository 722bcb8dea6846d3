"""Mixtures of experts: adapters on their experts are asked as they were trained, side by side, and not at vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from engine.evaluation.evaluate import evaluate_checkpoint
from engine.experiment import Experiment
from engine.models.loading import load_base, prepare_for_training
from engine.models.source import ModelError
from engine.serving.asking.ask import Sampling, ask
from engine.serving.client import Refused
from engine.serving.embedded import residents
from engine.serving.vllm.backend import rank_for
from storage.folders import checkpoint_folder, run_folder
from tests.questions import about_fact
from tests.unit.serving_home import add_run, models_of, reference, run_row, serving
from tests.unit.tiny_models import SHAPE, byte_level_tokenizer, tiny_experiment

KINDS: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "qwen3moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, {"num_experts": 4, "moe_intermediate_size": 8, "head_dim": 8}),
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 4}),
    "gptoss": (GptOssConfig, GptOssForCausalLM, {"num_local_experts": 4, "head_dim": 8}),
}
ON_EXPERTS = ("qwen3moe", "mixtral")  # where ‘all-linear’ reaches the experts
CHECKPOINTS = ("base", "memorised@4", "generalised@4")
PROMPTS = [[5, 6, 7], [9, 4], [8, 8, 8, 1, 30]]


def build(parent: Path, kind: str, **shape: int) -> Path:
    """A tiny model of that kind, saved."""
    config, model, own = KINDS[kind]
    torch.manual_seed(0)
    folder = parent / kind
    model(config(**{**SHAPE, "vocab_size": 512, "num_experts_per_tok": 2, **own, **shape})).save_pretrained(folder)
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for kind in KINDS:
        add_run(home, kind, build(home / "models", kind), "lora")
    return home


@pytest.mark.parametrize("large", [False, True])
def test_adapters_on_experts_are_asked_as_they_were_trained(
    home: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:  # several on one base in memory, where the small ones are models of their own
        monkeypatch.setattr(residents, "SMALL_MODEL_PARAMETERS", 0)
    with serving(home) as (client, _):
        for kind in ("qwen3moe",) if large else KINDS:
            for checkpoint in (*CHECKPOINTS, "memorised@4"):
                reply = client.complete(
                    f"{kind}/{checkpoint}", PROMPTS, max_tokens=6, temperature=0, logprobs=0, return_token_ids=True,
                    ignore_eos=True,
                )  # fmt: skip
                model: Any = reference(home, kind, checkpoint).causal
                for prompt, choice in zip(PROMPTS, reply.choices, strict=True):
                    assert choice.token_ids and choice.logprobs
                    whole = torch.tensor([[*prompt, *choice.token_ids]])
                    with torch.inference_mode():
                        scored = model(whole).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
                    assert scored.argmax(-1).tolist() == choice.token_ids
                    right = [line[token].item() for line, token in zip(scored, choice.token_ids, strict=True)]
                    assert choice.logprobs.token_logprobs == pytest.approx(right, abs=1e-5)


def test_the_experts_are_what_the_adapters_are_on(home: Path) -> None:
    for kind in KINDS:
        folder = checkpoint_folder(run_folder(home, kind), "memorised@4")
        names = load_file(folder / "adapter_model.safetensors")
        assert any(".experts." in name for name in names) == (kind in ON_EXPERTS)
        if kind in ON_EXPERTS:
            with pytest.raises(ValueError, match="on a mixture's experts"):
                rank_for(folder)
        else:
            assert rank_for(folder)


@pytest.mark.parametrize("kind", ON_EXPERTS)
def test_an_evaluation_of_such_a_run_equals_what_the_server_says(home: Path, kind: str) -> None:
    experiment = Experiment.from_data(run_row(home, kind).experiment)
    loaded = reference(home, kind, "generalised@4")
    rows = {(row.prompt, row.fact): row for row in evaluate_checkpoint(loaded, experiment, "generalised@4")}
    questions = [question for fact in (1, 5) for question in about_fact(experiment, fact)]
    with serving(home) as (client, _):
        answers = ask(client, models_of(home, kind)["generalised@4"], questions, Sampling(max_tokens=6))
    assert len(answers) == len(questions) > 4
    for answer in answers:
        row = rows[answer.question.prompt_id or 0, answer.question.fact_id or 0]
        assert (answer.text, answer.hit) == (row.answer, row.hit)
        assert answer.log_probability == pytest.approx(row.log_probability, abs=1e-4)


def test_an_adapter_of_a_mixture_of_another_shape_is_refused(home: Path) -> None:
    add_run(home, "wide", build(home / "others", "qwen3moe", moe_intermediate_size=12), "lora")
    foreign = checkpoint_folder(run_folder(home, "wide"), "memorised@4")
    (foreign / "key_rows.safetensors").unlink()
    with serving(home, "qwen3moe") as (client, _):
        before = client.complete("base", PROMPTS, max_tokens=4, temperature=0).choices
        with pytest.raises(Refused, match=r"does not fit the base|cannot be loaded"):
            client.load_adapter("mine", foreign.rename(home / "foreign"))
        assert client.complete("base", PROMPTS, max_tokens=4, temperature=0).choices == before


def test_dropout_on_experts_is_refused_before_training_with_what_to_do(home: Path) -> None:
    tuning = {"method": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
    experiment = tiny_experiment(home / "models" / "mixtral", tuning=tuning)
    with pytest.raises(ModelError, match=r"set tuning\.dropout to 0"):
        prepare_for_training(load_base(experiment), experiment)
