"""Log-probabilities the plain way: every answer a sequence of its own.

The measure of the fast ways, and what they fall back to for models that do not honour masks and positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.evaluation.batches import log_softmax, rows_that_fit

Pair = tuple[Sequence[int], Sequence[int]]  # ids of a prompt and of its answer


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
            found = log_softmax(model(fed, use_cache=False, logits_to_keep=width).logits)
            chosen = found.gather(-1, wanted[..., None])[..., 0]
            for row, score in zip(part, chosen.double().sum(1).tolist(), strict=True):
                scores[row] = score
    return scores
