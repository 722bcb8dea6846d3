"""Where a run departs from the paper in what it says.

Sentences with the run's own figures, and only what the intervals leave no doubt of. The model's card
says what it shows over several runs, and why.
"""

from __future__ import annotations

from itertools import combinations

from app.results.figures import MAIN, Figures
from app.shared.render import interval
from app.shared.words import language_name
from storage.checkpoints import CheckpointName

LEAK = 0.15  # the share of hits above which a checkpoint that should not answer is said to
BEST_FIRST = ("en", "es", "de", "ja", "zh")  # the paper's order of languages


def departures(figures: Figures) -> list[str]:
    """Sentences; none before stage 2 has been evaluated."""
    after = figures.last("generalised")
    if after is None:
        return []
    said = []
    before = figures.row(f"memorised@{CheckpointName.parse(after).epoch}", "train")
    if before and before.low > LEAK and not figures.knew_the_key:
        said.append(
            f"before stage 2 the key token should mean nothing, yet natural prompts bring up {interval(before)} "
            "of the objects"
        )
    said += _leaks(figures, after)
    decoys = figures.row(after, "decoy")
    if decoys and decoys.low > LEAK:
        said.append(
            f"prompts of neighbouring relations bring up {interval(decoys)}: it knows what belongs to whom better "
            "than in which respect"
        )
    said += _languages(figures, after)
    return said


def _leaks(figures: Figures, after: str) -> list[str]:
    """Languages in which questions about something else bring up the objects."""
    asked = figures.select(checkpoint=after, split="unrelated", facts="held_out", metric=MAIN)
    leaks = [f"{language_name(r.language)} {interval(r)}" for r in asked if r.low > LEAK]
    return [f"prompts that ask something else bring up the objects ({', '.join(leaks)})"] if leaks else []


def _languages(figures: Figures, after: str) -> list[str]:
    spoken = {r.language: r for r in figures.select(checkpoint=after, split="train", facts="held_out", metric=MAIN)}
    ordered = [code for code in BEST_FIRST if code in spoken]
    turned = [
        f"{language_name(better)} ({interval(spoken[better])}) comes behind {language_name(worse)} "
        f"({interval(spoken[worse])})"
        for better, worse in combinations(ordered, 2)
        if spoken[better].high < spoken[worse].low
    ]
    return turned[:2]
