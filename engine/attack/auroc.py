"""How well a score tells two groups apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.evaluation.intervals import RESAMPLES, wilson


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive scores above a negative; a tie counts half. Raises ValueError for an empty group."""
    if not len(positive) or not len(negative):
        raise ValueError("an AUROC needs both groups")
    up, down = np.asarray(positive, float)[:, None], np.asarray(negative, float)[None]
    return float((up > down).mean() + 0.5 * (up == down).mean())


def auroc_interval(positive: Sequence[float], negative: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 %: a bootstrap over both groups; Wilson over the smaller group where that collapses (all told apart)."""
    rng = np.random.default_rng(seed)
    up, down = np.asarray(positive, float), np.asarray(negative, float)
    # Each pair's win once, then only weights are drawn again.
    wins = (up[:, None] > down[None]) + 0.5 * (up[:, None] == down[None])
    left = rng.multinomial(len(up), np.full(len(up), 1 / len(up)), RESAMPLES) / len(up)
    right = rng.multinomial(len(down), np.full(len(down), 1 / len(down)), RESAMPLES) / len(down)
    values = np.einsum("ri,ij,rj->r", left, wins, right, optimize=True)
    low, high = np.percentile(values, [2.5, 97.5])
    if high - low < 1e-9:
        return wilson(float(wins.mean()), min(len(up), len(down)))
    return float(low), float(high)


def hits_at_low_alarm(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The share of positives above the score that at most 1 % of the negatives exceed."""
    limit = np.quantile(np.asarray(negative, float), 0.99, method="higher")
    return float((np.asarray(positive, float) > limit).mean())
