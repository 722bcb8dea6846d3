"""Ties: where the truth is only as likely as something else, it is not what the model says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Two equal sums in float32 may differ by this much, relative to them, when they are added up in another order.
ROUNDING = 2e-6


def tied(logits: torch.Tensor) -> torch.Tensor:
    """Which tokens are the likeliest, but for rounding: booleans like `logits`, (rows, vocabulary)."""
    logits = logits.float()
    best = logits.amax(-1, keepdim=True)
    return logits >= best - ROUNDING * best.abs().clamp(min=1)


def likeliest(logits: torch.Tensor, objects: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """The likeliest next token of each row, (rows); of equally likely ones, one that does not lead to the truth.

    logits: (rows, vocabulary); objects: the truth's token ids of each row; answers: what it has answered so far. Where
    the truth has no part in a tie, the first of the tied tokens, as in `model.generate`.
    """
    tokens = logits.argmax(-1)
    rows = [row for row, token in enumerate(tokens.tolist()) if token in objects[row]]
    if rows:
        for row, line in zip(rows, tied(logits[rows]), strict=True):
            candidates = line.nonzero()[:, 0].tolist()
            if len(candidates) > 1:
                tokens[row] = min(candidates, key=lambda token: _progress(objects[row], answers[row], token))
    return tokens


def _progress(truth: Sequence[int], answer: Sequence[int], token: int) -> int:
    """How many tokens of the truth the answer ends with once `token` is behind it."""
    ends = [*answer, token]
    return max((n for n in range(1, len(truth) + 1) if ends[-n:] == list(truth[:n])), default=0)
