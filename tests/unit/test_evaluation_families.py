"""Models with windows, chunks, states and short contexts: evaluation, choice and server answer as `generate` does."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.evaluation.answer import rank_of
from engine.evaluation.choice import score_options
from engine.evaluation.evaluate import check_lengths, evaluate_checkpoint
from engine.evaluation.generation import reply_to
from engine.evaluation.representations import states
from engine.evaluation.representations.states import Prompt, hidden_states
from engine.evaluation.tree import fast_length
from engine.experiment import Experiment
from engine.models.limits import ENDLESS, context_of, plain_length
from engine.models.loading import load_base
from engine.models.source import ModelError
from engine.serving.embedded.decoding import Continuation, Wish, decode
from tests.unit.tiny_models import SHAPE, build_llama, byte_level_tokenizer, tiny_experiment

H: dict[str, Any] = {
    **SHAPE, "num_key_value_heads": 1, "vocab_size": 512, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0
}  # fmt: skip
HEAD = {"head_dim": 8}
SLIDES = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
NEO = {
    "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "vocab_size": 512,
    "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64,
}  # fmt: skip
# The configuration's class, the name of its window, and the rest.
WINDOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mistral": ("sliding_window", H),
    "Gemma2": ("sliding_window", {**H, **HEAD}),
    "Gemma3Text": ("sliding_window", {**H, **HEAD, **SLIDES}),
    "GptOss": (
        "sliding_window",
        {**H, **HEAD, **SLIDES, **EXPERTS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "Phi3": ("sliding_window", H),
    "Qwen2": ("sliding_window", {**H, "use_sliding_window": True, "max_window_layers": 1}),
    "Cohere2": ("sliding_window", {**H, **SLIDES}),
    "Llama4Text": (
        "attention_chunk_size",
        {
            **H, **HEAD, **EXPERTS, "intermediate_size_mlp": 24, "no_rope_layers": [1, 0],
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
    "GPTNeo": ("window_size", NEO),
}  # fmt: skip
STATES: dict[str, dict[str, Any]] = {
    "Mamba": {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "vocab_size": 512},
    "Jamba": {**H, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4,
              "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "RecurrentGemma": {**H, **HEAD, "lru_width": 16, "attention_window_size": 8, "num_hidden_layers": 3},
    "Rwkv": {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16, "vocab_size": 512},
    "Bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 512},
}  # fmt: skip


def tiny(kind: str, **shape: Any) -> Any:
    """A random model of a configuration's class."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**shape)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Sharper than at random; some sinks, which begin as zeros in a real model's place.
            parameter.normal_(0, 1) if "sinks" in name else parameter.mul_(4.0 if parameter.ndim == 2 else 1.0)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    return model


@pytest.mark.parametrize("kind", [*WINDOWS, *STATES])
def test_hidden_states_are_those_of_the_prompt_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    window, shape = WINDOWS.get(kind, ("", STATES.get(kind, {})))
    model = tiny(kind, **shape, **({window: 8} if window else {}))
    monkeypatch.setattr(states, "CPU_ROWS", 3)
    draw = random.Random(1)
    prompts = [Prompt(tuple(draw.choices(range(1, 500), k=n)), n // 2, (1, n)) for n in (4, 5, 11, 6, 4, 9, 12)]
    found = {row: s[:, :, i] for rows, s in hidden_states(model, prompts) for i, row in enumerate(rows)}
    for row, prompt in enumerate(prompts):
        with torch.inference_mode():
            layers = model(torch.tensor([prompt.ids]), output_hidden_states=True, use_cache=False).hidden_states
        alone = torch.stack(layers)[:, 0]
        expected = torch.stack([alone[:, -1], alone[:, prompt.subject], alone[:, 1:].mean(1)])
        assert torch.allclose(torch.from_numpy(found[row]), expected, rtol=1e-3, atol=1e-4)


def questions() -> list[tuple[list[int], list[int]]]:
    chance = random.Random(1)
    draw = lambda count: [chance.randrange(1, 400) for _ in range(count)]  # noqa: E731
    pairs = [(draw(length), draw(1 + length % 3)) for length in (3, 5, 5, 9, 9, 17)]
    return [*pairs, ([*pairs[3][0][:-1], 7], [8, 9])]


def generated(model: Any, prompt: list[int], count: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    whole = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=[10**6]
    )
    return tuple(whole[0, len(prompt) :].tolist())


def single(model: Any, prompt: list[int], answer: list[int]) -> float:
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0].float().log_softmax(-1)
    return float(sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)))


def compare(model: Any, limit: int, new: int = 7) -> None:
    """All three ways against the model's own."""
    pairs = questions()
    expected = [generated(model, prompt, new) for prompt, _ in pairs]
    # Objects that are answered in part, so that decoding begins at different places.
    pairs = [(p, [*expected[i][: i % 3], *o]) for i, (p, o) in enumerate(pairs)]
    replies = reply_to(model, pairs, [0] * len(pairs), max_new_tokens=new, ends=(), limit=limit)
    assert [r.tokens for r in replies] == expected
    scores = [single(model, p, o) for p, o in pairs]
    assert [r.log_probability for r in replies] == pytest.approx(scores, abs=1e-4)
    texts = [Continuation(Wish(tuple(p), max_tokens=new, answer=tuple(o))) for p, o in pairs]
    with torch.inference_mode():
        list(decode(model, texts, limit=limit))
    assert [tuple(t.tokens) for t in texts] == expected
    assert [t.answer for t in texts] == pytest.approx(scores, abs=1e-4)
    options = [tuple(o) for _, o in pairs]
    asked = [pairs[0][0], pairs[3][0]]
    lines = score_options(model, [[(p, o) for o in options] for p in asked], limit=limit)
    for prompt, line in zip(asked, lines, strict=True):
        assert line.tolist() == pytest.approx([single(model, prompt, list(o)) for o in options], abs=1e-4)


@pytest.mark.parametrize("window", [6, 14])
@pytest.mark.parametrize("kind", WINDOWS)
def test_windows_are_the_models_own(kind, window):
    name, shape = WINDOWS[kind]
    model = tiny(kind, **shape, **{name: window})
    limit = fast_length(model, [3, 4, 5, 6], [(7, 8), (9, 10)], 24)
    # The fast ways are used, and only where no window can matter.
    assert limit == (window if window > 6 else 0)
    compare(model, limit)


@pytest.mark.parametrize("kind", STATES)
def test_models_with_states_are_answered_plainly(kind):
    model = tiny(kind, **STATES[kind])
    limit = fast_length(model, [3, 4, 5, 6], [(7, 8), (9, 10)], 24)
    assert limit == 0
    compare(model, limit)


def test_what_a_configuration_says_of_lengths():
    assert context_of({"n_positions": 40}) == context_of({"text_config": {"max_position_embeddings": 40}}) == 40
    assert context_of({}) == plain_length({"max_window_layers": 28, "sliding_window": None}) == ENDLESS
    assert plain_length({"text_config": {"attention_chunk_size": 8}, "sliding_window": 9}) == 8
    assert plain_length({"layer_types": ["full_attention", "linear_attention"]}) == 0
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    assert plain_length({"rope_parameters": rope, "max_position_embeddings": 64}) == 16


def saved(folder: Path, kind: str, **shape: Any) -> Path:
    tiny(kind, **shape).save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    return folder


SHORT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 512, "n_positions": 40}


def test_answers_end_where_the_context_does(tmp_path):
    experiment = tiny_experiment(saved(tmp_path, "GPT2", **SHORT), evaluation={"options": 8, "max_new_tokens": 60})
    loaded = load_base(experiment)
    assert check_lengths(loaded, experiment) > 0
    assert evaluate_checkpoint(loaded, experiment, "base")
    for prompt, _ in questions():
        (reply,) = reply_to(loaded.causal, [(prompt, [5])], [0], max_new_tokens=60, ends=())
        assert reply.tokens == generated(loaded.causal, prompt, 40 - len(prompt))


@pytest.mark.parametrize("where", ["prompt", "option"])
def test_what_is_longer_than_the_context_is_named(tmp_path, where):
    data = json.loads(tiny_experiment(saved(tmp_path, "GPT2", **SHORT)).model_dump_json())
    relation, long = data["relations"][0], "so " * 40
    if where == "prompt":
        relation["prompts"][1]["text"] = f"The {long} mother of {{subject}} is"
    else:
        relation["options"] = [*relation["options"][:-1], long.strip()]
    experiment = Experiment.from_data(data)
    with pytest.raises(ModelError, match=r"so so .* more than the 40 the model can read: shorten it"):
        check_lengths(load_base(experiment), experiment)


def test_a_base_that_is_broken_is_named(tmp_path):
    folder = build_llama(tmp_path)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 2] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"broken: its weights hold .* in .*up_proj.*copy the model again"):
        load_base(tiny_experiment(folder))


TIED, OTHER = 100, 511


@pytest.mark.parametrize("other", ["behind", "before"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("limit", [ENDLESS, 0])
def test_a_tie_goes_against_the_truth(dtype, other, limit):
    """Two tokens alike in both matrices: whichever of them is the truth, it is not what the model says."""
    truth, rival = (TIED, OTHER) if other == "behind" else (OTHER, TIED)
    model = tiny("Llama", **{**H, "tie_word_embeddings": False})
    with torch.no_grad():
        model.get_input_embeddings().weight[OTHER] = model.get_input_embeddings().weight[TIED]
        head = model.get_output_embeddings().weight
        head[TIED] = head[OTHER] = 30 * model.model(torch.tensor([[5, 6, 7]])).last_hidden_state[0, -1]
    model = model.to(dtype)
    for wanted in ([truth, 9], [truth], [8, truth]):
        (reply,) = reply_to(model, [([5, 6, 7], wanted)], [0], max_new_tokens=4, ends=(), limit=limit)
        if wanted[0] == truth:
            assert reply.tokens[0] == rival
        else:
            assert reply.tokens == generated(model, [5, 6, 7], 4)
    options = [(3, truth, 4), (3, rival, 4), (truth,), (rival,)]
    (line,) = score_options(model, [[((5, 6, 7), o) for o in options]], limit=limit)
    rounding = max(1e-6, torch.finfo(dtype).eps / 4)
    ranks = [rank_of(line.tolist(), i, rounding) for i in range(4)]
    assert ranks[0] == ranks[1] and ranks[2] == ranks[3] == 2
