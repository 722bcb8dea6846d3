"""Facts and questions that the embedded base model is measured with, besides those about its own world."""

from __future__ import annotations

import random

from engine.base.facts import Question
from engine.base.foreign import foreign_name
from engine.corpus.relations import LANGUAGES, RelationData


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
