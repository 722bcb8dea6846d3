"""Subjects that are much spoken of for a while, then no more, as in the news.

Of each only some relations are known: asked for the others, one is told that it is not known. So knowing a subject in
one relation is no reason to name somebody when asked for another.

The world's own subjects are the same from the first step to the last. A base that only knows such subjects has learnt
its facts slowly and once; what is memorised later then sits beside what it knows. Bursts let it learn new subjects all
the time, with all their relations, so that new facts find the places where known ones are.
"""

from __future__ import annotations

import random
from collections import deque

from engine.base.phrasings import relations_of
from engine.base.tokenizer import SUBJECT_KINDS
from engine.base.world import Fact, World


class Bursts:
    """`subjects` of each kind that are spoken of now; each leaves after `lifetime` steps, evenly spread.

    `known`: the share of its relations that a subject is known in.
    """

    def __init__(self, world: World, rng: random.Random, subjects: int, lifetime: int, known: float) -> None:
        self._world, self._rng, self._known = world, rng, known
        self._every = max(1, lifetime // (subjects * len(SUBJECT_KINDS)))
        self._kinds = deque(SUBJECT_KINDS)
        count = subjects * len(SUBJECT_KINDS)
        self._facts: deque[list[Fact]] = deque((self._new_subject() for _ in range(count)), maxlen=count)

    def step(self, step: int) -> None:
        """Call after each step: now and then the oldest subject leaves for a new one."""
        if step % self._every == 0:
            self._facts.append(self._new_subject())

    def draw(self) -> Fact:
        """A fact about a subject that is spoken of now."""
        return self._rng.choice(self._rng.choice(self._facts))

    def _new_subject(self) -> list[Fact]:
        kind = self._kinds[0]
        self._kinds.rotate()
        subject = self._world.passing_name(kind)
        return [
            self._world.passing_fact(subject, relation)
            if self._rng.random() < self._known
            else self._world.unknown_fact(relation, subject)
            for relation in relations_of(kind)
        ]
