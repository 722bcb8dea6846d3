"""Questions about what the embedded base model learnt in its pre-training."""

from __future__ import annotations

import random
from typing import NamedTuple

from engine.base.phrasings import NAME_KINDS, world_data
from engine.base.world import World

OWN_FACTS = 200  # how many of the world's facts the base is asked for, to see what it keeps


class Question(NamedTuple):
    """A prompt about a fact, filled in, and the object that answers it."""

    prompt: str
    object: str


def own_questions(world: World) -> list[Question]:
    """Facts of the world, each in one of the phrasings that stated it in pre-training."""
    rng = random.Random("own")
    named = [f for f in world.facts if world_data()["relations"][f.relation]["object"] in NAME_KINDS]
    return [
        Question(rng.choice(fact.phrasings).format(subject=fact.subject), fact.object)
        for fact in rng.sample(named, min(OWN_FACTS, len(named)))
    ]
