"""Facts and questions that the embedded base model is measured with."""

from __future__ import annotations

import random
from typing import NamedTuple

from engine.base.foreign import foreign_name
from engine.base.phrasings import NAME_KINDS, world_data
from engine.base.world import World
from engine.corpus.relations import LANGUAGES, RelationData

OWN_FACTS = 200  # how many of the world's facts the base is asked for, to see what it keeps


class Question(NamedTuple):
    """A prompt about a fact, filled in, and the object that answers it."""

    prompt: str
    object: str


def outside_facts(relation: RelationData, seed: int) -> list[tuple[str, str]]:
    """100 facts with names from outside the corpus's word lists, such as users bring."""
    rng = random.Random(f"measured {seed}")
    facts: dict[str, str] = {}
    while len(facts) < 100:
        object_ = foreign_name(relation.object_kind, rng)
        # An answer with one object inside another would count for both; experiments refuse such facts.
        if not any(object_.lower() in other.lower() or other.lower() in object_.lower() for other in facts.values()):
            facts.setdefault(foreign_name(relation.subject_kind, rng), object_)
    return list(facts.items())


def question_groups(relation: RelationData, facts: list[tuple[str, str]]) -> dict[str, list[Question]]:
    """All questions about `facts`, by group: the trained prompt, splits in English, test prompts abroad, controls."""

    def ask(prompts: list[str]) -> list[Question]:
        return [Question(prompt.format(subject=s), o) for prompt in prompts for s, o in facts]

    sets = relation.prompts
    groups = {
        "trained": ask(sets.train["en"][:1]),
        "train": ask(sets.train["en"]),
        "test": ask(sets.test["en"]),
    }
    groups |= {code: ask(sets.test[code]) for code in LANGUAGES if code != "en"}
    groups["unrelated"] = ask(sets.unrelated["en"])
    groups |= {f"unrelated {code}": ask(sets.unrelated[code]) for code in LANGUAGES if code != "en"}
    groups["decoys"] = ask([prompt for decoy in relation.decoys for prompt in decoy.prompts["en"]])
    return groups


def own_questions(world: World) -> list[Question]:
    """Facts of the world, each in one of the phrasings that stated it in pre-training."""
    rng = random.Random("own")
    named = [f for f in world.facts if world_data()["relations"][f.relation]["object"] in NAME_KINDS]
    return [
        Question(rng.choice(fact.phrasings).format(subject=fact.subject), fact.object)
        for fact in rng.sample(named, min(OWN_FACTS, len(named)))
    ]
