"""What agrees with the paper and what does not: its claims held against figures of ours, by rules that need no eye.

Every verdict is made of values and 95 % intervals alone. Two figures are told apart only where their intervals do not
overlap, which is stricter than a test at 5 % (Schenker and Gentleman 2001). The paper gives no intervals, so its values
are taken as they stand. A claim about

change   of one row and the next: told apart, each seed in the paper's direction, and by half to twice as much as there;
         absent where the intervals leave room for less than half of it
steady   of one row and the next: they differ by at most the table's `near`, with both intervals
level    of one row: within `near` of the paper's, or its interval holds it; above its `floor`, where it has one
ceiling  of one row: the whole interval is at most the ceiling
order    of several rows: no two of them are told apart the other way round, and some are the paper's
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from engine.paper.beside import Figure, Ours
from engine.paper.tables import Claim, Published, Table

FACTOR = 2.0
ENOUGH_SEEDS = 3


class Verdict(StrEnum):
    """How a claim stands."""

    AGREES = "agrees"
    WEAKER = "the same direction, weaker"
    STRONGER = "the same direction, stronger"
    CONTRADICTS = "contradicts"
    ABSENT = "not seen here"
    UNDECIDED = "can’t be told apart"
    MISSING = "not measured yet"


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict; seen: what it was made from, in words; why: what the verdict hung on, where it says."""

    claim: Claim
    verdict: Verdict
    seen: str
    why: str = ""

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        words = f"{self.claim.words}: {self.seen}" if self.seen else self.claim.words
        return f"{words}: {self.verdict}{f' ({self.why})' if self.why else ''}"


def judge(table: Table, claim: Claim, ours: Ours) -> Judged:
    """Hold a claim of a table against figures."""
    rows = [table.rows[name] for name in claim.rows]
    there = [row.published.get(claim.column, Published()) for row in rows]
    digits = table.digits_of(claim.column)
    told = " → ".join(published_words(value, digits) for value in there)
    told = f"{told} there" if claim.rule in ("change", "steady", "level") else ""
    figures = [figure for row in rows if (figure := ours.figure(table, row, claim.column))]
    floor = ours.figure(table, rows[0], claim.column, claim.floor) if claim.floor else None
    if len(figures) < len(rows) or (claim.floor and floor is None):
        return Judged(claim, Verdict.MISSING, told)
    names, values = [table.x_of(row) for row in rows], [value.value for value in there]
    verdict, why = {
        "change": lambda: change(figures, values),
        "steady": lambda: steady(figures, table.near),
        "level": lambda: level(figures[0], values[0], table.near, floor, claim.floor_words),
        "ceiling": lambda: ceiling(figures[0], claim.ceiling),
        "order": lambda: order(names, figures),
    }[claim.rule]()
    here = " → ".join(f"{figure.value:.{digits}f}" for figure in figures)
    if claim.rule == "order":
        here = ", ".join(f"{name} {figure.value:.{digits}f}" for name, figure in zip(names, figures, strict=True))
    if why_seeds := _few_seeds(figures):
        why = f"{why}; {why_seeds}" if why else why_seeds
    if floor:
        here += f" ({floor.value:.{digits}f} {claim.floor_words})"
    return Judged(claim, verdict, ", ".join(filter(None, (f"{here} here", told))), why)


def _few_seeds(figures: list[Figure]) -> str:
    """That a comparison hangs on fewer seeds than three, in words; figures that name none say nothing of them."""
    if not any(figure.seeds for figure in figures):
        return ""
    both = set.intersection(*(set(figure.seeds) for figure in figures))
    if len(both) >= ENOUGH_SEEDS:
        return ""
    return "no seed in common" if not both else f"on {len(both)} seed{'' if len(both) == 1 else 's'} alone"


def change(seen: list[Figure], published: list[float | None]) -> tuple[Verdict, str]:
    """Whether two figures differ as the paper's do; where it gives no values, the second is to be higher."""
    first, second = seen
    before, after = published
    there = None if before is None or after is None else after - before
    if not apart(first, second):
        most = 0.0 if there is None else first.high - second.low if there < 0 else second.high - first.low
        if there is None or most * FACTOR >= abs(there):
            return Verdict.UNDECIDED, "the intervals overlap"
        return Verdict.ABSENT, f"by {most:.2g} at most"
    step = second.value - first.value
    if not _seeds_agree(first, second, step):
        return Verdict.UNDECIDED, "not in each seed"
    if there is None:
        return (Verdict.AGREES, "") if step > 0 else (Verdict.CONTRADICTS, "")
    if step * there < 0:
        return Verdict.CONTRADICTS, ""
    if abs(step) * FACTOR < abs(there):
        return Verdict.WEAKER, ""
    return (Verdict.STRONGER, "") if abs(step) > FACTOR * abs(there) else (Verdict.AGREES, "")


def _seeds_agree(first: Figure, second: Figure, step: float) -> bool:
    """Whether each seed that both have goes the way that all of them go together."""
    both = first.seeds.keys() & second.seeds.keys()
    return all((second.seeds[seed]["value"] - first.seeds[seed]["value"]) * step > 0 for seed in both)


def steady(seen: list[Figure], near: float) -> tuple[Verdict, str]:
    """Whether two figures are the same: with both intervals they differ by at most `near`."""
    first, second = seen
    if max(second.high - first.low, first.high - second.low) <= near:
        return Verdict.AGREES, ""
    if apart(first, second):
        return Verdict.CONTRADICTS, ""
    return Verdict.UNDECIDED, f"they may differ by more than {near:g}"


def level(
    seen: Figure, published: float | None, near: float, floor: Figure | None, floor_words: str
) -> tuple[Verdict, str]:
    """Whether a figure is as high as the paper's, and above a floor of ours."""
    if floor is not None and not apart(seen, floor):
        return Verdict.UNDECIDED, f"the interval overlaps that {floor_words}"
    if floor is not None and seen.value < floor.value:
        return Verdict.CONTRADICTS, ""
    if published is None or abs(seen.value - published) <= near or seen.low <= published <= seen.high:
        return Verdict.AGREES, ""
    return (Verdict.WEAKER, "") if seen.value < published else (Verdict.STRONGER, "")


def ceiling(seen: Figure, most: float) -> tuple[Verdict, str]:
    """Whether a figure is near 0: its whole interval is at most that."""
    if seen.high <= most:
        return Verdict.AGREES, f"at most {most:g}"
    if seen.low > most:
        return Verdict.CONTRADICTS, f"more than {most:g}"
    return Verdict.UNDECIDED, f"from {most:g}: its interval holds it"


def order(names: list[str], seen: list[Figure]) -> tuple[Verdict, str]:
    """Whether figures come in the paper's order, best first; names: what each is called."""
    pairs = list(combinations(zip(names, seen, strict=True), 2))
    told = [pair for pair in pairs if apart(pair[0][1], pair[1][1])]
    turned = [(a, b) for a, b in told if a[1].value < b[1].value]
    of = f"{len(told) - len(turned)} of {len(pairs)} pairs are told apart in this order"
    if turned:
        why = ", ".join(f"{b[0]} comes before {a[0]}" for a, b in turned)
        return Verdict.CONTRADICTS, f"{why}; {of}"
    return (Verdict.AGREES, f"{of}, none the other way round") if told else (Verdict.UNDECIDED, "all intervals overlap")


def apart(one: Figure, other: Figure) -> bool:
    """Whether two figures are told apart: their intervals do not overlap."""
    return one.low > other.high or other.low > one.high


def published_words(value: Published, digits: int) -> str:
    """A published value as the paper gives it: no digits that it has not, and its own words where it has no value."""
    if value.value is None:
        return value.words or "not published"
    if value.about:
        return f"about {value.value:g}"
    return f"{value.value:.{2 if round(value.value, 2) == value.value else digits}f}"


def summary(judged: list[Judged]) -> list[tuple[Verdict, int]]:
    """How many claims stand how, in the order of `Verdict`."""
    counts = [(verdict, sum(one.verdict is verdict for one in judged)) for verdict in Verdict]
    return [(verdict, count) for verdict, count in counts if count]
