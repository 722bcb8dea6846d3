"""Natural fictional names: made of words that a language model knows, from a committed list (`natural_names.yaml`).

No word of a name comes twice among the facts of an experiment, within a relation never, across relations as far as the
lists reach: each relation begins at a place of its own in one row of names. Only the sort of thing (College, ballad)
that ends the name of an institution, a city or a genre does.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml

from engine.corpus.relations import RelationData, load_relation, load_relations

NATURAL_NAMES_FILE = Path(__file__).with_name("natural_names.yaml")


@dataclass(frozen=True)
class Words:
    """What the names of a kind are put together from; `sort` takes the place of `second` where it may come again."""

    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()
    pattern: str = "{first} {second}"

    def names(self, seed: str, avoid: Collection[str] = ()) -> list[str]:
        """A name of each first word, in a row that `seed` decides; no word of `avoid`, in lower case, is in one."""
        draw = random.Random(seed)
        first, last = (draw.sample(words, len(words)) for words in (self.first, self.second or self.sort or ("",)))
        first = [word for word in first if word.casefold() not in avoid]
        if self.second:
            last = [word for word in last if word.casefold() not in avoid]
            first = first[: len(last)]
        return [self.pattern.format(first=word, second=last[i % len(last)]) for i, word in enumerate(first)]

    def could_make(self, name: str) -> bool:
        """Whether the name is put together from these words."""
        first, _, second = name.removeprefix(self.pattern.partition("{")[0]).partition(" ")
        return first in self.first and second in (self.second or self.sort or ("",))


@cache
def natural_words(kind: str) -> Words:
    """The words of names of `kind`. Raises ValueError when there is no such kind."""
    kinds = yaml.safe_load(NATURAL_NAMES_FILE.read_text(encoding="utf-8"))
    if kind not in kinds:
        raise ValueError(f"No natural names of the kind {kind!r}: there are {', '.join(sorted(kinds))}.")
    words: dict[str, Any] = {k: value if k == "pattern" else tuple(value) for k, value in kinds[kind].items()}
    return Words(**words)


def natural_kinds(data: RelationData) -> tuple[str, str]:
    """The kinds that the natural names of a relation's subjects and of its objects are of."""
    return data.subject_kind, data.natural_object_kind or data.object_kind


def natural_names(kind: str, seed: int, avoid: Collection[str] = ()) -> Iterator[str]:
    """Different names of `kind`, none of them in `avoid`; as long as the words reach, none has a word of those.

    After that words come again, in other names, until there are no others.
    """
    words, taken = natural_words(kind), {name.casefold() for name in avoid}
    row = _row(kind, seed, avoid)
    for number in count():
        yield from row
        taken.update(name.casefold() for name in row)
        row = [name for name in words.names(f"{kind} {seed} {number}") if name.casefold() not in taken]
        if not row:
            return


def _row(kind: str, seed: int, avoid: Collection[str]) -> list[str]:
    """The names of `kind` that have no word of the names in `avoid`, nor one of each other."""
    return natural_words(kind).names(f"{kind} {seed}", {word for name in avoid for word in name.casefold().split()})


def natural_facts(relation: str, seed: int, number: int, avoid: Collection[str] = ()) -> list[tuple[str, str]]:
    """`number` facts (subject, object) of `relation`, none of whose names is in `avoid`; more begin with the same ones.

    Raises ValueError when `relation` is unknown, or when `number` is larger than the number of facts that exist.
    """
    kinds = natural_kinds(load_relation(relation))
    each = kinds.count(kinds[0])
    limit = min(len(natural_words(kind).names("")) for kind in kinds) // each
    if not 0 <= number <= limit:
        raise ValueError(
            f"Cannot make {number} facts of the relation {relation!r}: at most {limit} have distinct natural names. "
            "Ask for fewer, choose invented names, or import facts of your own."
        )
    rows = [_share(relation, kind, each * number, seed, avoid) for kind in kinds]
    return list(zip(rows[0][::each], rows[1][each - 1 :: each], strict=True))


def _share(relation: str, kind: str, number: int, seed: int, avoid: Collection[str]) -> list[str]:
    """The names from the place in their row where the relation begins to use them, on from the row's beginning."""
    names = _row(kind, seed, avoid)
    if len(names) < number:
        names = list(islice(natural_names(kind, seed, avoid), number))
    uses = [data.name for data in load_relations().values() for used in natural_kinds(data) if used == kind]
    start = len(names) * uses.index(relation) // len(uses)
    return (names[start:] + names[:start])[:number]
