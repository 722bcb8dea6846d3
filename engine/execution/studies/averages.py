"""What runs measured as a whole, each with an interval of its own: the average over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.evaluation.intervals import Z


@dataclass(frozen=True)
class Whole:
    """A figure of one run, or the average of several runs' ones.

    n: prompts, questions or tokens; n_facts: facts, questions or texts; of all runs together, those that are the same
    ones counted once. among: what stands for these facts, equal where they are the same ones.
    """

    value: float
    low: float
    high: float
    n: int
    n_facts: int
    among: str


def average(figures: Sequence[Whole]) -> Whole:
    """One figure of several runs: their mean, its interval from theirs.

    Of runs about facts of their own the variances add up. Runs about the same facts tell no more of those than one
    does: what one errs by, all may, so that their interval is the mean of their intervals.
    """
    alike: dict[str, list[Whole]] = {}
    for figure in figures:
        alike.setdefault(figure.among, []).append(figure)
    apart = [_of_the_same(found) for found in alike.values()]
    if len(apart) == 1:
        return apart[0]
    shares = [len(found) / len(figures) for found in alike.values()]
    value = sum(share * one.value for share, one in zip(shares, apart, strict=True))
    errors = [share * (one.high - one.low) / (2 * Z) for share, one in zip(shares, apart, strict=True)]
    half = Z * sum(error**2 for error in errors) ** 0.5
    return Whole(value, value - half, value + half, sum(o.n for o in apart), sum(o.n_facts for o in apart), "")


def _of_the_same(found: Sequence[Whole]) -> Whole:
    value, low, high = (sum(getattr(one, name) for one in found) / len(found) for name in ("value", "low", "high"))
    n, n_facts = sum(one.n for one in found), max(one.n_facts for one in found)
    return Whole(value, low, high, n, n_facts, found[0].among)
