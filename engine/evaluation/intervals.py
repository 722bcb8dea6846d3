"""How sure a figure is: 95 % intervals for shares and means over facts.

The unit is the fact: several prompts about one fact are not independent, so with several prompts a fact whole facts
are drawn again (clustered bootstrap; Miller, "Adding Error Bars to Evals", arXiv 2411.00640). With one prompt a fact a
share has its Wilson interval (Wilson 1927), which, unlike the normal one, holds for few facts and near 0 and 1
(Bowyer, Aitchison and Ivanova, "Don't Use the CLT in LLM Evals With Fewer Than a Few Hundred Datapoints",
arXiv 2503.01747).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Z = 1.959963984540054  # of a two-sided 95 % interval
RESAMPLES = 2000


def wilson(value: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of the share `value` among n independent facts.

    `value` may also be a mean of numbers between 0 and 1: their variance is at most that of a share, so that the
    interval is then wider than it needs to be. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError("an interval needs at least one fact")
    scale = 1 + Z**2 / n
    centre = (value + Z**2 / (2 * n)) / scale
    half = Z / scale * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    # At 0 and 1 rounding would leave the value itself out.
    return min(value, max(0.0, float(centre - half))), max(value, min(1.0, float(centre + half)))


def bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over all answers when whole facts are drawn again.

    sums, counts: (facts), the sum of a fact's values and how many there are. The same seed gives the same interval.
    """
    weights = _weights(len(sums), seed)
    means = (weights @ sums) / (weights @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def interval(sums: np.ndarray, counts: np.ndarray, *, share: bool, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of values between 0 and 1, given by fact as for `bootstrap`.

    share: the values are hits and misses; with one prompt a fact that is Wilson's case. Otherwise the bootstrap, and
    Wilson over the facts where that collapses: when all facts are alike, as at 0 and 1, or when there is only one.
    """
    value = float(sums.sum() / counts.sum())
    if share and (counts == 1).all():
        return wilson(value, len(sums))
    low, high = bootstrap(sums, counts, seed)
    if high - low < 1e-12:
        return wilson(min(1.0, max(0.0, value)), len(sums))
    return low, high


def difference(before: np.ndarray, after: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The change of a mean and its 95 % percentile interval: (value, low, high).

    before, after: (facts, 2), a fact's sum and how many answers it has. Of equally many facts they are the same facts
    in the same order, and are drawn together (paired); else each side's are drawn by themselves.
    """
    value, draws = difference_draws(before, after, seed)
    low, high = np.percentile(draws, [2.5, 97.5])
    return value, float(low), float(high)


def difference_draws(before: np.ndarray, after: np.ndarray, seed: int = 0) -> tuple[float, np.ndarray]:
    """The change of a mean, and the changes when facts are drawn again: (resamples). Arguments as of `difference`."""
    first = _weights(len(before), seed)
    second = first if len(after) == len(before) else _weights(len(after), seed + 1)
    draws = (second @ after[:, 0]) / (second @ after[:, 1]) - (first @ before[:, 0]) / (first @ before[:, 1])
    value = after[:, 0].sum() / after[:, 1].sum() - before[:, 0].sum() / before[:, 1].sum()
    return float(value), draws


@lru_cache(maxsize=32)
def _weights(facts: int, seed: int) -> np.ndarray:
    """How often each fact is drawn in each resample: (resamples, facts)."""
    draw = np.random.default_rng([seed, facts])
    return draw.multinomial(facts, np.full(facts, 1 / facts), size=RESAMPLES).astype(np.float64)
