"""Paired comparisons: the same facts of the same seeds, and as many of them as are made together."""

from __future__ import annotations

import numpy as np
import pytest

from engine.studies.compare import compare

FACTS = 40


def asked(hits: list[int], seed: int = 0, answers: int = 3) -> dict[tuple[int, int], tuple[float, int]]:
    return {(seed, fact): (float(n), answers) for fact, n in enumerate(hits)}


def test_what_makes_a_fact_hard_counts_in_both() -> None:
    # Facts differ much, and the second setting gains one answer with each: certain when they are paired.
    first = [fact % 3 for fact in range(FACTS)]
    (found,) = compare(asked(first), [asked([n + 1 for n in first])])
    assert found is not None and found.n_facts == FACTS
    assert found.value == pytest.approx(1 / 3) and found.low == pytest.approx(found.high) == pytest.approx(1 / 3)
    assert found.p == found.p_holm == 1 / 2000
    # By themselves they would hardly be told apart.
    shuffled = np.random.default_rng(0).permutation(first).tolist()
    (other,) = compare(asked(first), [asked(shuffled)])
    assert other is not None and other.value == pytest.approx(0) and other.low < 0 < other.high and other.p > 0.5


def test_only_facts_that_both_were_asked_about_are_compared() -> None:
    first = asked([1] * FACTS) | asked([1] * FACTS, seed=1)
    held_out = {key: value for key, value in asked([3] * FACTS, seed=1).items() if key[1] >= 30}
    (found, nothing) = compare(first, [held_out, asked([1], seed=7)])
    assert found is not None and found.n_facts == 10 and found.value == pytest.approx(2 / 3)
    assert nothing is None


def test_several_comparisons_are_judged_together() -> None:
    chance = np.random.default_rng(1)
    first = chance.integers(0, 4, FACTS).tolist()
    others = [[min(3, n + int(chance.random() < gain)) for n in first] for gain in (0.5, 0.1, 0.0)]
    alone = [compare(asked(first), [asked(other)])[0] for other in others]
    together = compare(asked(first), [asked(other) for other in others])
    assert all(one and other for one, other in zip(alone, together, strict=True))
    ps = [one.p for one in together if one]
    assert ps == [one.p for one in alone if one], "each by itself is what it is"
    holm = [one.p_holm for one in together if one]
    order = np.argsort(ps, kind="stable")
    assert holm[order[0]] == min(1.0, 3 * ps[order[0]])
    assert np.all(np.diff(np.array(holm)[order]) >= 0) and all(h >= p for h, p in zip(holm, ps, strict=True))


def test_a_few_facts_prove_nothing() -> None:
    (found,) = compare(asked([0, 0, 0]), [asked([3, 3, 3])])
    assert found is not None and found.value == 1 and found.p == 0.25
