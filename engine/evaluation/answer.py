"""One model's reply to one prompt about one fact, judged. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Equal sums of float32 may come out this much apart, relative to them, when they are added up in another order.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, with the names of the columns of storage/answers.py.

    prompt, fact: their ids; hit: whether the object is in it; log_probability: natural logarithm of the product of the
    object's token probabilities. The rest is None where it was not asked as multiple choice: the object's rank (1 is
    best) among so many options, and its log-probability normalised over these.
    """

    prompt: int
    fact: int
    answer: str
    hit: bool
    log_probability: float
    choice_rank: int | None = None
    choice_options: int | None = None
    log_probability_normalised: float | None = None


def rank_of(scores: Sequence[float], truth: int, rounding: float = ROUNDING) -> int:
    """The rank of the true option among ln P of all: 1 is best. A tie, also one but for rounding, goes against it."""
    least = scores[truth] - rounding * max(1.0, abs(scores[truth]))
    return sum(score >= least for score in scores)
