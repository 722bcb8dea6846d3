"""Is one setting better than another? Paired comparisons over the facts and seeds that both were asked about."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.evaluation.intervals import difference_draws

# (seed, fact, among which facts): (sum of the hits, answers). The last is equal where a number is the same fact.
BySeedAndFact = Mapping[tuple[int, int, str], tuple[float, int]]


@dataclass(frozen=True)
class Comparison:
    """How much higher the second setting's share of hits is, with its 95 % interval.

    p: two-sided, by the bootstrap; p_holm: the same among all comparisons made together (Holm 1979). n_facts: how many
    facts of all seeds both were asked about; one that is the same in several seeds counts once.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    n_facts: int


def compare(first: BySeedAndFact, others: Sequence[BySeedAndFact]) -> list[Comparison | None]:
    """Each of the others against the first; None where they have no fact of a seed in common.

    Facts are drawn again with all their answers in both settings (paired bootstrap, Efron and Tibshirani 1993, chapter
    16): with the same seed they are the same facts, so that what makes one hard counts in both. Facts that every seed
    has are drawn with the answers of all of them.
    """
    found: list[Comparison | None] = []
    for other in others:
        common = sorted(first.keys() & other.keys())
        if not common:
            found.append(None)
            continue
        before, after = (
            summed_by_fact(((fact, among), side[seed, fact, among]) for seed, fact, among in common)
            for side in (first, other)
        )
        value, draws = difference_draws(before, after)
        low, high = np.percentile(draws, [2.5, 97.5])
        tail = min((draws <= 0).mean(), (draws >= 0).mean())
        # So many draws can tell no smaller share than one of them, and n facts none that their signs alone could not.
        p = min(1.0, max(2 * float(tail), 1 / len(draws), 2 * 0.5 ** len(before)))
        found.append(Comparison(value, float(low), float(high), p, p, len(before)))
    return _holm(found)


def summed_by_fact(sums: Iterable[tuple[Hashable, Sequence[float]]]) -> np.ndarray:
    """What belongs to one fact added up: (facts, numbers), in the order in which they come first."""
    facts, numbers = zip(*sums, strict=True)
    rows = {fact: row for row, fact in enumerate(dict.fromkeys(facts))}
    found = np.zeros((len(rows), len(numbers[0])))
    np.add.at(found, [rows[fact] for fact in facts], np.array(numbers, dtype=np.float64))
    return found


def _holm(found: list[Comparison | None]) -> list[Comparison | None]:
    """The smallest p times their number, the next times one less, none smaller than the one before it."""
    made = sorted(((i, one) for i, one in enumerate(found) if one), key=lambda pair: pair[1].p)
    worst = 0.0
    for place, (i, one) in enumerate(made):
        worst = max(worst, min(1.0, (len(made) - place) * one.p))
        found[i] = replace(one, p_holm=worst)
    return found
