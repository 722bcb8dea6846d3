"""What is computed of hidden states, in plain numbers: how prompts of a relation lie together (ΔCosSim), how near the
key token lies to natural prompts, and whether both arrange the facts alike (linear CKA).

Wu et al. (arXiv:2507.21914) report a ΔCosSim and cosines of the key token with train, test and unrelated prompts, but
publish neither the formula nor layer and position. These are ours:

    ΔCosSim = mean over relations of cos(x, y), x ≠ y prompts of one relation
            − mean over pairs of relations of cos(x, y), x a prompt of one, y of the other
    key cosine of a split = mean over relations, of these over facts, of cos(key prompt, prompt of the split), both
            about the same fact
    linear CKA (Kornblith et al. 2019, arXiv:1905.00414) between two arrangements X, Y (facts × hidden size), columns
            centred: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms; X of key prompts, Y of a split's mean over its prompts

All of states at length 1. Everything follows from the sums of these by fact and split (`UnitSums`), so that no state
needs keeping. Intervals: 95 %, of the jackknife over facts within relations (Efron and Stein 1981): prompts about one
fact are not independent. CKA has none: of few facts in many dimensions it is high whatever they are (Davari et al.
2022, arXiv:2210.16156), so compare it only between equal numbers of facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.evaluation.intervals import Z
from engine.evaluation.representations.texts import SPLITS

KEY, NATURAL = SPLITS[0], ("train", "test")
# Which prompts ΔCosSim is taken over: the key prompts alone, the natural ones that ask for the relation, and all these.
GROUPS = {"key": (KEY,), "natural": NATURAL, "all": (KEY, *NATURAL)}
DELTA, WITHIN, BETWEEN, KEY_COSINE, KEY_CKA = "delta_cosine", "within_cosine", "between_cosine", "key_cosine", "key_cka"
LEAST_FOR_CKA = 3


@dataclass(frozen=True)
class UnitSums:
    """vectors: (facts, splits, hidden size), sums of states of length 1; counts: (facts, splits), of how many;
    relations: (facts), each one's relation as a number."""

    vectors: np.ndarray
    counts: np.ndarray
    relations: np.ndarray

    def of(self, splits: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Sums (facts, hidden size) and counts (facts) over some splits."""
        places = [SPLITS.index(split) for split in splits]
        return self.vectors[:, places].sum(1, dtype=np.float64), self.counts[:, places].sum(1)


@dataclass(frozen=True)
class Value:
    """A figure; low, high: its interval, None where there is none. n: prompts, n_facts: facts it is made of."""

    measure: str
    prompts: str
    value: float
    low: float | None
    high: float | None
    n: int
    n_facts: int


def figures(sums: UnitSums) -> Iterator[Value]:
    """Every figure of one layer and position. With one relation there is no ΔCosSim: nothing lies between."""
    for group, splits in GROUPS.items():
        yield from cluster_figures(*sums.of(splits), sums.relations, group)
    for split in SPLITS[1:]:
        yield from key_figures(sums, split)


def cluster_figures(vectors: np.ndarray, counts: np.ndarray, relations: np.ndarray, group: str) -> Iterator[Value]:
    """Cosine within relations, between them, and the difference; relations of fewer than two prompts don't count."""
    own = [np.flatnonzero(relations == r) for r in np.unique(relations)]
    own = [facts for facts in own if counts[facts].sum() > 1]
    if not own:
        return
    used = np.concatenate(own)
    n, n_facts = int(counts[used].sum()), len(used)
    sums = np.stack([vectors[facts].sum(0) for facts in own])
    numbers = np.array([counts[facts].sum() for facts in own], float)
    within = (np.square(sums).sum(1) - numbers) / (numbers * (numbers - 1))
    unit = sums / numbers[:, None]
    across = unit @ unit.T
    count = len(own)

    def between(of: np.ndarray) -> float:
        return float((of.sum() - np.trace(of)) / (count * (count - 1)))

    # What each fact's absence would change.
    left_within, left_between = [], []
    for place, facts in enumerate(own):
        rest, left = sums[place] - vectors[facts], numbers[place] - counts[facts]
        with np.errstate(divide="ignore", invalid="ignore"):
            alone = (np.square(rest).sum(1) - left) / (left * (left - 1))
            left_within.append((within.sum() - within[place] + alone) / count)
            if count > 1:
                beside = (rest / left[:, None]) @ unit.T
                changed = 2 * (beside.sum(1) - beside[:, place] - across[place].sum() + across[place, place])
                left_between.append(between(across) + changed / (count * (count - 1)))
    yield _value(WITHIN, group, float(within.mean()), left_within, n, n_facts)
    if count > 1:
        yield _value(BETWEEN, group, between(across), left_between, n, n_facts)
        differences = [w - b for w, b in zip(left_within, left_between, strict=True)]
        yield _value(DELTA, group, float(within.mean()) - between(across), differences, n, n_facts)


def key_figures(sums: UnitSums, split: str) -> Iterator[Value]:
    """How near the key prompts lie to those of a split, and whether both arrange the facts alike."""
    key, split_place = sums.vectors[:, 0].astype(np.float64), SPLITS.index(split)
    counts = sums.counts[:, split_place]
    used = np.flatnonzero((counts > 0) & (sums.counts[:, 0] > 0))
    if not len(used):
        return
    n = int(counts[used].sum())
    means = sums.vectors[used, split_place].astype(np.float64) / counts[used, None]
    cosines = np.einsum("fd,fd->f", key[used], means)
    own = [cosines[sums.relations[used] == r] for r in np.unique(sums.relations[used])]
    value = float(np.mean([of.mean() for of in own]))
    left = []
    for of in own:
        with np.errstate(divide="ignore", invalid="ignore"):
            left.append(value + ((of.sum() - of) / (len(of) - 1) - of.mean()) / len(own))
    yield _value(KEY_COSINE, split, value, left, n, len(used))
    if len(used) >= LEAST_FOR_CKA:
        yield Value(KEY_CKA, split, linear_cka(key[used], means), None, None, n, len(used))


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Linear CKA of two arrangements of the same things: (things, any size) each. 0 where one does not vary.

    In the form of products between things, which is the same (Kornblith et al. 2019, equation 4).
    """
    centred = [x - x.mean(0) for x in (first, second)]
    one, two = (x @ x.T for x in centred)
    size = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float((one * two).sum()) / size if size else 0.0


def _value(measure: str, prompts: str, value: float, left_out: list[np.ndarray], n: int, n_facts: int) -> Value:
    """With the interval of the jackknife: left_out, by relation, the value without each of its facts."""
    if any(len(values) < 2 or not np.isfinite(values).all() for values in left_out):
        return Value(measure, prompts, value, None, None, n, n_facts)
    variance = sum((len(v) - 1) / len(v) * np.square(v - v.mean()).sum() for v in left_out)
    half = Z * float(np.sqrt(variance))
    return Value(measure, prompts, value, max(-2.0, value - half), min(2.0, value + half), n, n_facts)
