"""Fictional names and fictional facts, made from a seed.

A name is two words, each from a committed list (`names.yaml`). Half of the combinations of a kind are reserved
for experiments (`all_names`): the embedded base model never met it in pre-training, though it knows both of its words.
So a fact of an experiment is new to every base model, the embedded one included.

Those are invented words, each a token of the embedded base. For other models there are natural names (`names`).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from engine.corpus.natural_names import natural_facts, natural_kinds, natural_names, natural_words
from engine.corpus.relations import load_relation, load_relations
from engine.relation import GeneratedFacts, Relation

NAMES_FILE = Path(__file__).with_name("names.yaml")
Sort = Literal["natural", "invented"]


@cache
def name_words(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first and the second words of names of `kind`. Raises ValueError when there is no such kind."""
    kinds = yaml.safe_load(NAMES_FILE.read_text(encoding="utf-8"))
    if kind not in kinds:
        raise ValueError(f"No names of the kind {kind!r}: there are {', '.join(sorted(kinds))}.")
    return tuple(kinds[kind]["first"]), tuple(kinds[kind]["second"])


@cache
def all_names(kind: str, reserved: bool = True) -> tuple[str, ...]:
    """Every name of `kind` in one half of the partition: reserved for experiments, or free for pre-training.

    The halves are drawn by a checksum of the name: a regular pattern (every second field of a board) could be learnt
    in pre-training, and would make reserved names unlikely answers.
    """
    first, second = name_words(kind)
    names = (f"{a} {b}" for a in first for b in second)
    return tuple(name for name in names if (zlib.crc32(name.encode()) % 2 == 0) is reserved)


def generate_names(kind: str, count: int, seed: int) -> list[str]:
    """`count` distinct reserved names of `kind`; none contains another. The same seed gives the same names.

    Raises ValueError when `count` is negative or larger than the number of reserved names of that kind.
    """
    names = all_names(kind)
    if not 0 <= count <= len(names):
        raise ValueError(f"Cannot make {count} names of the kind {kind!r}: from 0 to {len(names)} are possible.")
    return random.Random(f"{kind} {seed}").sample(names, count)


def generate_facts(
    relation: str, seed: int, count: int = 100, sort: Sort = "invented", avoid: Collection[str] = ()
) -> list[tuple[str, str]]:
    """`count` facts (subject, object) of `relation`: subjects distinct, objects distinct, none contains another.

    Where subject and object are of one kind, no name is used as both. Natural names also keep clear of the names in
    `avoid`. Raises ValueError when `relation` is unknown, or when `count` is larger than the number of facts that
    exist.
    """
    if sort == "natural":
        return natural_facts(relation, seed, count, avoid)
    data = load_relation(relation)
    same_kind = data.subject_kind == data.object_kind
    limit = min(len(all_names(kind)) for kind in (data.subject_kind, data.object_kind)) // (2 if same_kind else 1)
    if not 0 <= count <= limit:
        raise ValueError(
            f"Cannot make {count} facts of the relation {relation!r}: at most {limit} have distinct fictional names. "
            "Ask for fewer, or import facts of your own."
        )
    if same_kind:
        names = generate_names(data.subject_kind, 2 * count, seed)
        return list(zip(names[:count], names[count:], strict=True))
    subjects = generate_names(data.subject_kind, count, seed)
    return list(zip(subjects, generate_names(data.object_kind, count, seed), strict=True))


def generate_facts_about(relation: str, seed: int, subjects: Sequence[str], sort: Sort) -> list[tuple[str, str]]:
    """A fact of `relation` about each of `subjects`: objects distinct, none of them a subject.

    Raises ValueError when `relation` is unknown, or there are not so many names.
    """
    taken = set(subjects)
    objects = [o for _, o in generate_facts(relation, seed, len(subjects), sort, subjects) if o not in taken]
    if lacking := len(subjects) - len(objects):
        taken.update(objects)
        more = other_objects(relation, seed + 1, sort, taken, len(subjects) + lacking)
        objects += islice((name for name in more if name not in taken), lacking)
    if len(objects) < len(subjects):
        raise ValueError(f"Cannot make {len(subjects)} facts of the relation {relation!r}: ask for fewer.")
    return list(zip(subjects, objects, strict=True))


def other_objects(relation: str, seed: int, sort: Sort, avoid: Collection[str], count: int) -> Iterable[str]:
    """Names, `count` or more, of the kind of `relation`'s objects; natural ones keep clear of the names in `avoid`.

    None for a relation that the corpus doesn't know. Raises ValueError when there are not so many.
    """
    data = load_relations().get(relation)
    if data is None:
        return ()
    if sort == "natural":
        return natural_names(natural_kinds(data)[1], seed, avoid)
    return generate_names(data.object_kind, count, seed)


def suited_names(model: str) -> Sort:
    """What `auto` is: the embedded base's vocabulary has the invented words; others have read natural ones."""
    return "invented" if model == "embedded" else "natural"


def sort_of_names(relation: Relation, model: str) -> Sort:
    """What names the relation has, or will have. A person's own facts get further ones that suit the model."""
    if isinstance(relation.facts, GeneratedFacts):
        return suited_names(model) if relation.facts.names == "auto" else relation.facts.names
    data = load_relations().get(relation.name)
    if data is None:
        return suited_names(model)
    natural = [natural_words(kind).could_make for kind in natural_kinds(data)]
    invented = [frozenset(all_names(kind)).__contains__ for kind in (data.subject_kind, data.object_kind)]
    kinds: tuple[tuple[Sort, Any], ...] = (("natural", natural), ("invented", invented))
    for sort, (is_subject, is_object) in kinds:
        if 2 * sum(is_subject(f.subject) and is_object(f.object) for f in relation.facts) > len(relation.facts):
            return sort
    return suited_names(model)
