"""The plain way: every answer a sequence of its own, decoded by transformers' `generate`.

The measure of the fast ways, and what is done instead wherever they might not be the same: for models that do not
honour masks and positions, that keep something else than keys and values of their past, and beyond a window.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import Cache, GenerationConfig, LogitsProcessor, StoppingCriteria

from engine.evaluation.batches import DIVERGED, EvaluationError, log_probability_of, rows_that_fit
from engine.evaluation.parallel import Stopped
from engine.evaluation.ties import likeliest
from engine.models.limits import ENDLESS, context_of, plain_length

Pair = tuple[Sequence[int], Sequence[int]]  # ids of a prompt and of its answer

# Some models keep what they have read, or how they turn positions, in their modules: then one batch at a time.
_one_at_a_time = threading.RLock()


def context(model: Any) -> int:
    """How many tokens the model reads at most, its answer among them."""
    return context_of(model.config.get_text_config().to_dict())


def alone(model: Any) -> AbstractContextManager[Any]:
    """Holds other threads off a model that can read one batch at a time only; nothing for any other."""
    plain = plain_length(model.config.get_text_config().to_dict()) == ENDLESS
    return nullcontext() if plain else _one_at_a_time


def known_length(model: Any) -> int:
    """Up to how many tokens, by its configuration, the model is a plain one; beyond that no fast way is its own."""
    config = model.config.get_text_config().to_dict()
    return min(plain_length(config), context_of(config))


def last_logits(model: Any, ids: torch.Tensor, count: int) -> torch.Tensor:
    """The logits at the last `count` places of whole texts, (rows, count, vocabulary), read without a cache."""
    try:
        found = model(ids, use_cache=False, logits_to_keep=count).logits
    except TypeError:  # it cannot leave out the others
        found = model(ids, use_cache=False).logits
    return found[:, -count:]


@torch.inference_mode()
def log_probabilities(model: Any, pairs: Sequence[Pair]) -> list[float]:
    """ln P(answer | prompt) of each pair, the sum over the answer's tokens.

    Sequences of equal shape share a batch, so nothing is padded; the last token of an answer is never fed, and logits
    are computed where an answer is. Raises EvaluationError on logits that are not numbers.
    """
    scores = [0.0] * len(pairs)
    by_shape: dict[tuple[int, int], list[int]] = {}
    for row, (prompt, answer) in enumerate(pairs):
        by_shape.setdefault((len(prompt), len(answer)), []).append(row)
    for (length, width), rows in sorted(by_shape.items()):
        size = rows_that_fit(model, length + width, width)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            fed = torch.tensor([(*pairs[r][0], *pairs[r][1][:-1]) for r in part], device=model.device)
            wanted = torch.tensor([list(pairs[r][1]) for r in part], device=model.device)
            with alone(model):
                chosen = log_probability_of(last_logits(model, fed, width), wanted)
            for row, score in zip(part, chosen.double().sum(1).tolist(), strict=True):
                scores[row] = score
    return scores


@torch.inference_mode()
def generate(
    model: Any, pairs: Sequence[Pair], *, max_new_tokens: int, ends: Sequence[int], stop: threading.Event
) -> list[list[int]]:
    """What `model.generate` answers to prompts of equal length, each with the object that a tie goes against.

    An answer ends before a token of `ends`, after `max_new_tokens`, or where the model's context does. Raises
    EvaluationError on logits that are not numbers, and Stopped.
    """
    if len(pairs) > 1 and not _decodes_batches(model):
        return [generate(model, [p], max_new_tokens=max_new_tokens, ends=ends, stop=stop)[0] for p in pairs]
    prompts = torch.tensor([list(prompt) for prompt, _ in pairs], device=model.device)
    length = prompts.shape[1]
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=min(max_new_tokens, context(model) - length),
        # A model's own ends would come in where none are given.
        eos_token_id=list(ends) or [-1],
        pad_token_id=ends[0] if ends else 0,
    )
    with alone(model):
        whole = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            generation_config=settings,
            logits_processor=[_AgainstTruth(length, [answer for _, answer in pairs])],
            stopping_criteria=[_Stop(stop)],
        )
    if stop.is_set():
        raise Stopped
    answers = whole[:, length:].tolist()
    return [a[: next((i for i, token in enumerate(a) if token in ends), len(a))] for a in answers]


def _decodes_batches(model: Any) -> bool:
    """Whether the model keeps what it has read in a cache of transformers: states of other kinds mix rows up."""
    with alone(model):
        found = model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=True)
    return any(isinstance(value, Cache) for value in found.values())


class _AgainstTruth(LogitsProcessor):
    """Has `generate` choose what `likeliest` says."""

    def __init__(self, length: int, objects: Sequence[Sequence[int]]) -> None:
        self.length, self.objects = length, objects

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if bool(scores.amax(-1).isnan().any()):
            raise EvaluationError(DIVERGED)
        tokens = likeliest(scores, self.objects, input_ids[:, self.length :].tolist())
        return scores.scatter(-1, tokens[:, None], float("inf"))  # type: ignore[return-value]


class _Stop(StoppingCriteria):
    """Ends every answer once `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)  # type: ignore[return-value]
