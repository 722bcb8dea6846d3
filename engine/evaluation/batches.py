"""Which questions are computed together, and how many at once.

Questions of exactly equal length share a batch, so no padding stands before a prompt. Those of one prompt begin with
the same tokens ("According to the records, the mother of …"); that beginning is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from engine.models.out_of_memory import is_out_of_memory

# Measured: on a CPU more rows leave the cache and cost more a row; a GPU is only busy with many.
CPU_ROWS, GPU_ROWS = 256, 4096
CPU_BYTES = 256_000_000
# A batch narrower than this costs mostly overhead, so it takes in questions that share less of their beginning.
NARROW = 64

# From so many tokens on, logits are normalised without a copy of them all: as exact, but with other last bits.
LARGE_VOCABULARY = 100_000
# Numbers that are copied at once then: 64 MB.
NORMALISED_AT_ONCE = 2**24

DIVERGED = "The model's outputs are not numbers: its training has diverged. Lower the learning rate and run it anew."

Item = TypeVar("Item")
Result = TypeVar("Result")


class EvaluationError(RuntimeError):
    """A model's outputs cannot be evaluated; the message is one sentence for the person who runs it."""


@dataclass(frozen=True)
class Batch:
    """Rows (indices of questions) of equal prompt length; their first `shared` tokens are equal within a group."""

    rows: np.ndarray
    shared: int


def plan_batches(prompts: Sequence[Sequence[int]], groups: Sequence[int], rows_of: Callable[[int], int]) -> list[Batch]:
    """Cut questions into batches of equal prompt length.

    prompts: token ids of each question; groups: questions of one number have a beginning in common;
    rows_of(length): how many rows of that length fit into one batch. Depends on nothing else, so the batches of two
    evaluations of the same questions are the same.
    """
    by_length: dict[int, dict[int, list[int]]] = {}
    for row, (ids, group) in enumerate(zip(prompts, groups, strict=True)):
        by_length.setdefault(len(ids), {}).setdefault(group, []).append(row)
    batches = []
    for length, grouped in sorted(by_length.items()):
        pieces = [(common_beginning([prompts[r] for r in rows]), rows) for rows in grouped.values()]
        pieces.sort(key=lambda piece: -piece[0])
        batches += list(_fill(pieces, rows_of(length)))
    return batches


def _fill(pieces: list[tuple[int, list[int]]], limit: int) -> Iterator[Batch]:
    waiting: list[int] = []
    shared = 0
    for common, rows in pieces:
        if waiting and common < shared and len(waiting) >= NARROW:
            yield Batch(np.array(waiting), shared)
            waiting = []
        waiting = waiting + rows
        shared = common
        while len(waiting) >= limit:
            yield Batch(np.array(waiting[:limit]), shared)
            waiting = waiting[limit:]
    if waiting:
        yield Batch(np.array(waiting), shared)


def common_beginning(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences of equal length begin with; the last token is never counted."""
    first = np.array(sequences[0])
    equal = (np.array(sequences) == first).all(axis=0)[:-1]
    return int(np.argmin(equal)) if not equal.all() else len(equal)


def rows_that_fit(model: Any, tokens: int, logit_positions: int, many: bool = False) -> int:
    """How many rows of `tokens` tokens with logits at `logit_positions` places to compute at once.

    Estimates logits (with their float32 copies) and the key-value cache (with the copy made while it grows), against
    a fixed budget on a CPU and a quarter of what the model leaves of a GPU. That does not depend on what else is there
    at the moment, since other batches have other last bits: two runs on one kind of GPU compute the same ones. many: as
    many as memory allows, also where fewer are faster.
    """
    config = model.config.get_text_config()
    width = model.dtype.itemsize
    # A model without heads keeps a state in place of keys and values; as large as theirs, to be on the safe side.
    queries = _number(config, "num_attention_heads") or 1
    heads = _number(config, "num_key_value_heads") or queries
    head_size = _number(config, "head_dim") or config.hidden_size // queries
    cache = 4 * config.num_hidden_layers * heads * head_size * width * tokens
    logits = logit_positions * config.vocab_size * (width + 8)
    if model.device.type == "cuda":
        memory = torch.cuda.get_device_properties(model.device).total_memory
        budget, most = max(CPU_BYTES, (memory - model.get_memory_footprint()) // 4), GPU_ROWS
    else:
        budget, most = CPU_BYTES, GPU_ROWS if many else CPU_ROWS
    return max(1, min(most, int(budget // (cache + logits))))


def _number(config: Any, name: str) -> int:
    """A size in a configuration; the largest where each layer has its own, 0 where there is none."""
    value = getattr(config, name, None)
    return max(value, default=0) if isinstance(value, list | tuple) else value or 0


def in_halves(work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """`work(items)`, in ever smaller parts when the accelerator runs out of memory."""
    try:
        return work(items)
    except RuntimeError as error:
        if len(items) == 1 or not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    middle = len(items) // 2
    return in_halves(work, items[:middle]) + in_halves(work, items[middle:])


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities in float32, (…, vocabulary). Raises EvaluationError when the logits are not numbers."""
    found = logits.float().log_softmax(-1)
    # One logit that is no number spoils its whole row.
    if bool(found[..., 0].isnan().any()):
        raise EvaluationError(DIVERGED)
    return found


def log_probability_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """ln P of one token at each place, float32: logits (…, vocabulary), tokens (…).

    Raises EvaluationError when the logits are not numbers.
    """
    if logits.shape[-1] < LARGE_VOCABULARY:
        return log_softmax(logits).gather(-1, tokens[..., None])[..., 0]
    return logits.gather(-1, tokens[..., None])[..., 0].float() - normalisers(logits)


def normalisers(logits: torch.Tensor) -> torch.Tensor:
    """What logits (…, vocabulary) exceed log-probabilities by, float32 (…), without a copy of them all.

    Raises EvaluationError when the logits are not numbers.
    """
    lines = logits.flatten(0, -2)
    parts = lines.split(max(1, NORMALISED_AT_ONCE // logits.shape[-1]))
    found = torch.cat([part.float().logsumexp(-1) for part in parts])
    if not bool(found.isfinite().all()):
        raise EvaluationError(DIVERGED)
    return found.view(logits.shape[:-1])
