"""How the runs of a study represent their prompts, as figures of the study: the last layer at the last token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from engine.evaluation.intervals import Z
from storage.representations import RepresentationFigure, list_representations

POSITION = "last"


@dataclass(frozen=True)
class Pooled:
    """A figure over one run or several. n: prompts; n_facts: facts; of all runs together."""

    value: float
    low: float
    high: float
    n: int
    n_facts: int


def split_of(measure: str, prompts: str) -> str:
    """What a study calls such a figure in place of a split: `key_cosine test`, `delta_cosine natural`."""
    return f"{measure} {prompts}"


def represented(answers: Database) -> Iterator[RepresentationFigure]:
    """The figures with an interval of each checkpoint of a run, at its last layer and the last token."""
    found = list_representations(answers, position=POSITION)
    last = max((figure.layer for figure in found), default=0)
    return (figure for figure in found if figure.layer == last and figure.low is not None and figure.high is not None)


def pooled(figures: Sequence[Any], *, alike: bool = False) -> Pooled:
    """One figure of runs that each looked at facts of their own: their mean, its interval from theirs.

    figures: with `value`, `low`, `high`, `n`, `n_facts`. The variances of independent means add up. alike: they looked
    at the same facts or texts, more of which they are not: what one errs by, all may, so that nothing is averaged out.
    """
    count = len(figures)
    if alike:
        value, low, high = (sum(getattr(f, name) for f in figures) / count for name in ("value", "low", "high"))
        return Pooled(value, low, high, sum(f.n for f in figures), max(f.n_facts for f in figures))
    errors = [(figure.high - figure.low) / (2 * Z) for figure in figures]
    value = sum(figure.value for figure in figures) / count
    half = Z * sum(error**2 for error in errors) ** 0.5 / count
    return Pooled(value, value - half, value + half, sum(f.n for f in figures), sum(f.n_facts for f in figures))
