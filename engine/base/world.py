"""The synthetic world: entities with invented names, and for each of their facts the few phrasings that state it.

A fact is stated in only a few phrasings, so that the model must learn what the phrasings of a relation have in
common: a fact stated in all of them would teach no more than a list.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import NamedTuple

from engine.base.foreign import foreign_name
from engine.base.phrasings import NAME_KINDS, own_phrasings, relations_of, stated_phrasings, world_data
from engine.base.tokenizer import SUBJECT_KINDS, closed_answers
from engine.corpus.names import all_names


class Fact(NamedTuple):
    """A fact of the world and the templates, with `{subject}`, that state it in pre-training.

    known: False where `object` are the words which say that nobody knows it.
    """

    subject: str
    relation: str
    object: str
    phrasings: tuple[str, ...]
    known: bool = True


def answer_text(name: str) -> str:
    """How an object follows its prompt: one space, the object, a full stop."""
    return f" {name}."


class World:
    """Everything that pre-training says.

    `entities` subjects of each kind, answers from pools of `answers` names of each kind, `foreign_share` of either
    with names from outside the word lists (`passing_foreign_share` for `passing_name`), `phrasings_per_fact` statements
    of a fact, `passing_new_answers` of the answers about passing subjects from no pool (`passing_fact`).
    `own_phrasing_share` of the statements are drawn from the relation's own phrasings, where it has some: there are
    so many frames that what is usually said ("How many pages does … have?") would otherwise hardly ever be said. The
    same numbers and `seed` give the same world.
    """

    def __init__(
        self,
        seed: int,
        entities: int,
        answers: int,
        phrasings_per_fact: int,
        foreign_share: float,
        own_phrasing_share: float,
        passing_foreign_share: float,
        passing_new_answers: float,
    ) -> None:
        self._rng = random.Random(f"world {seed}")
        self._foreign_share = foreign_share
        self._phrasings_per_fact = phrasings_per_fact
        self._own_phrasing_share = own_phrasing_share
        self._passing_foreign_share = passing_foreign_share
        self._passing_new_answers = passing_new_answers
        self._free: dict[str, list[str]] = {}
        for kind in sorted(NAME_KINDS):
            self._free[kind] = list(all_names(kind, reserved=False))
            self._rng.shuffle(self._free[kind])
        self._used: set[str] = set()
        self._pools = dict(closed_answers())
        objects = {data["object"] for data in world_data()["relations"].values()}
        self._pools |= {kind: [self._new_name(kind) for _ in range(answers)] for kind in sorted(objects & NAME_KINDS)}
        self.facts = [
            self.new_fact(subject, relation)
            for kind in SUBJECT_KINDS
            for subject in [self._new_name(kind) for _ in range(entities)]
            for relation in relations_of(kind)
        ]
        self.facts_by_relation: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self.facts_by_relation[fact.relation].append(fact)

    def new_fact(self, subject: str, relation: str) -> Fact:
        """A fact with a drawn answer and drawn phrasings."""
        answer = self._rng.choice(self._pools[world_data()["relations"][relation]["object"]])
        return Fact(subject, relation, answer, self._draw_phrasings(relation))

    def passing_fact(self, subject: str, relation: str) -> Fact:
        """A fact about a passing subject. Its answer, too, may be a name that is said now and never again.

        Some words stand in no name of the pools: a base that has met no other answers can hardly learn to say them.
        """
        kind = world_data()["relations"][relation]["object"]
        if kind not in NAME_KINDS or self._rng.random() >= self._passing_new_answers:
            return self.new_fact(subject, relation)
        return Fact(subject, relation, self.passing_name(kind), self._draw_phrasings(relation))

    def unknown_fact(self, relation: str, subject: str | None = None) -> Fact:
        """A question, and the words which say in its language that nobody knows the answer.

        About `subject`, or about one that nobody ever spoke of.
        """
        data = world_data()
        shares = data["languages"]
        language = self._rng.choices(list(shares), list(shares.values()))[0]
        phrasing = self._draw_phrasing(relation, language)
        subject = subject or self.passing_name(data["relations"][relation]["subject"])
        return Fact(subject, relation, data["unknown_answers"][language], (phrasing,), known=False)

    def passing_name(self, kind: str) -> str:
        """A name of no entity of the world. It may come again: the word lists end, and passing subjects do not."""
        while True:
            foreign = self._rng.random() < self._passing_foreign_share
            name = foreign_name(kind, self._rng) if foreign else self._rng.choice(self._free[kind])
            if name not in self._used:
                return name

    def _new_name(self, kind: str) -> str:
        while True:
            foreign = self._rng.random() < self._foreign_share
            name = foreign_name(kind, self._rng) if foreign else self._free[kind].pop()
            if name not in self._used:
                self._used.add(name)
                return name

    def _draw_phrasings(self, relation: str) -> tuple[str, ...]:
        shares = world_data()["languages"]
        languages = self._rng.choices(list(shares), list(shares.values()), k=self._phrasings_per_fact)
        return tuple(self._draw_phrasing(relation, language) for language in languages)

    def _draw_phrasing(self, relation: str, language: str) -> str:
        own = own_phrasings(relation, language)
        drawn_from_own = own and self._rng.random() < self._own_phrasing_share
        return self._rng.choice(own if drawn_from_own else stated_phrasings(relation, language))
