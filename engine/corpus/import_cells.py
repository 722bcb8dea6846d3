"""The cells of an imported table: cleaning names, and reading and thinning lists of alternatives."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

from engine.checks import normalise

MAX_LIST_CHARACTERS = 100_000


def clean(cell: str) -> str:
    """The cell without spaces around it, and with every run of white space inside it as one space."""
    return " ".join(cell.split())


def parse_alternatives(cell: str) -> tuple[tuple[str, ...], str | None]:
    """The names in a cell, and what is wrong with it in words, or None.

    A cell is a Python list of strings, as in the published dataset, or names with `|` between them.
    """
    text = cell.strip()
    if not text:
        return (), None
    if not text.startswith("["):
        return _names(text.split("|")), None
    if len(text) > MAX_LIST_CHARACTERS:
        return (), f"the list is longer than {MAX_LIST_CHARACTERS:,} characters and was not read: shorten it"
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return (), "is not a list of names and was not read: write ['first', 'second'] or first | second"
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        return (), "holds more than names and was not read: write ['first', 'second'] or first | second"
    return _names(values), None


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for value in values if (name := clean(value)))


def keep_distinct(truth: str, alternatives: Iterable[str]) -> tuple[str, ...]:
    """The alternatives without those that contain, or are contained in, the truth or an earlier alternative.

    Source: the paper replaces such alternatives; an imported table has nothing to put in their place.
    """
    alternatives = tuple(alternatives)
    options = [_normal(name) for name in (truth, *alternatives)]
    joined = "\n".join(options)
    if all(joined.count(option) == 1 for option in options):
        return alternatives
    kept_options, kept = [options[0]] if options[0] else [], []
    for name, option in zip(alternatives, options[1:], strict=True):
        if option and not any(option in other or other in option for other in kept_options):
            kept_options.append(option)
            kept.append(name)
    return tuple(kept)


@lru_cache(maxsize=100_000)
def _normal(name: str) -> str:
    return normalise(name)
