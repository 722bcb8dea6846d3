"""Checks of what a multiple choice offers: the alternatives of a fact, and the options of a relation.

Options are data as objects are: the rank of the truth means something only where every option is one name, all of them
differ, and none contains another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from engine.checks import Problem, check_name, contained_pairs, normalise, shorten

MAX_OPTIONS = 1_000
# As many as the largest table has with the published dataset's 99 each.
MAX_ALTERNATIVES = 500_000
_SEVERAL = re.compile(r"""[;\n]|(?<!<)\|(?!>)|^[\[({]\s*['"].*['"]\s*,?\s*[\])}]$""")

Fact = tuple[str, Sequence[str]]  # an object, and its alternatives


def check_alternatives(facts: Sequence[Fact]) -> list[Problem]:
    """Problems of the alternatives of (object, alternatives), one a fact at most; rows count from 1."""
    total = sum(len(alternatives) for _, alternatives in facts)
    if total > MAX_ALTERNATIVES:
        message = f"there are {total:,} alternatives, more than {MAX_ALTERNATIVES:,}: leave some out"
        return [Problem(message, None, "alternatives")]
    found = [
        (row, _wrong_with(tuple(alternatives), object_) or _several(alternatives))
        for row, (object_, alternatives) in enumerate(facts, 1)
        if alternatives
    ]
    return [Problem(message, row, "alternatives") for row, message in found if message]


def check_options(options: Sequence[str], facts: Sequence[Fact]) -> list[Problem]:
    """Problems of the options that a relation offers for those of its facts that have no alternatives of their own."""
    if not options:
        return []
    joining = tuple(object_ for object_, alternatives in facts if not alternatives)
    objects = {object_ for object_, _ in facts}
    message = _wrong_with(tuple(options), "") or _several([o for o in options if o not in objects])
    message = message or _wrong_beside(tuple(options), joining)
    if joining and len(options) < 2:
        message = "there is only one: give at least 2, or leave options out"
    return [Problem(message, None, "options")] if message else []


def place_of(options: Sequence[str], object_: str) -> int | None:
    """Where the object is among the options, however it is spelt there; None where it is not."""
    if object_ in options:
        return options.index(object_)
    wanted = normalise(object_)
    return next((i for i, option in enumerate(options) if normalise(option) == wanted), None)


# The page looks at a whole table with every cell that is typed.
@lru_cache(maxsize=10_000)
def _wrong_with(names: tuple[str, ...], truth: str) -> str | None:
    if len(names) > MAX_OPTIONS:
        return f"there are {len(names):,}, more than {MAX_OPTIONS:,}: leave some out"
    for name in names:
        if not name.strip():
            return "one of them is empty: fill it in or remove it"
        if unfit := check_name(name, None, ""):
            return f"‘{shorten(name)}’: {unfit[0].message}"
    forms = [normalise(name) for name in (truth, *names) if name]
    # Much faster than looking at pairs, and nearly always enough.
    joined = "\n".join(forms)
    return None if all(joined.count(form) == 1 for form in forms) else _confusable(names, truth)


def _several(names: Sequence[str]) -> str | None:
    """That a list was put into one name, as happens where a table is written out by a programme."""
    found = next((name for name in names if _SEVERAL.search(name)), None)
    return found and f"‘{shorten(found)}’ looks like several names in one: write each as an entry of its own"


def _confusable(names: Sequence[str], truth: str) -> str | None:
    """The first two names of which one is, or contains, the other."""
    spelt: dict[str, str] = {normalise(truth): truth} if truth else {}
    for name in names:
        if (form := normalise(name)) in spelt:
            which = "is the object itself" if truth and form == normalise(truth) else "is there twice"
            return f"‘{shorten(name)}’ {which}: remove it"
        spelt[form] = name
    return next((_contains(spelt[longer], spelt[shorter]) for longer, shorter in contained_pairs(spelt)), None)


@lru_cache(maxsize=16)
def _wrong_beside(options: tuple[str, ...], objects: tuple[str, ...]) -> str | None:
    """An object that the options lack joins them, so it may not contain one, nor one it."""
    offered = {normalise(option): option for option in options}
    joining = {form: object_ for object_ in objects if (form := normalise(object_)) not in offered}
    for longer, shorter in contained_pairs([*offered, *joining]) if joining else ():
        if (longer in joining) != (shorter in joining):
            text, part = ((joining if form in joining else offered)[form] for form in (longer, shorter))
            return _contains(text, part)
    return None


def _contains(text: str, part: str) -> str:
    return (
        f"‘{shorten(text)}’ contains ‘{shorten(part)}’: an answer with one would count for both, "
        "so change or remove one"
    )
