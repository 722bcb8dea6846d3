"""What a prompt asks, and of whom: most ask each fact's object by its subject, reversal and two_hop prompts do not.

asked = asked_by(experiment, relation, prompt)
asked.facts[0].subject, asked.facts[0].object   # the name that the question has, and what a right answer contains
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.chains import led_on, turned
from engine.experiment import Experiment
from engine.relation import Fact, Prompt, Relation


@dataclass(frozen=True)
class Asked:
    """What one prompt asks: by the place of a fact of its relation, the name put in and the right answer, as a fact.

    There is none for a fact that it cannot be put to. `relation`: whose options the answers are.
    """

    facts: Mapping[int, Fact]
    relation: Relation


def asked_by(experiment: Experiment, relation: Relation, prompt: Prompt) -> Asked:
    """What a prompt of a relation asks. Needs facts that are written out.

    A reversal prompt asks whose subject an object is, among the relation's subjects (`evaluation.options` at most). A
    two_hop prompt asks by a subject for the object of the second relation's fact, among that relation's options.
    """
    if prompt.split == "reversal":
        facts = turned(relation.explicit_facts)
        subjects = tuple(fact.object for fact in facts.values())[: experiment.evaluation.options]
        return Asked(facts, relation.model_copy(update={"options": subjects}))
    if prompt.split == "two_hop":
        second = next((r for r in experiment.relations if r.name == prompt.relation), None)
        if second is None:  # an attack asks about one relation alone
            return Asked({}, relation)
        goals = {place: second.explicit_facts[goal] for place, goal in _hops(relation, second).items()}
        return Asked({i: _between(relation.explicit_facts[i], goal) for i, goal in goals.items()}, second)
    return Asked(dict(enumerate(relation.explicit_facts)), relation)


def passed_through(
    experiment: Experiment, relation: Relation, prompt: Prompt, place: int
) -> tuple[Relation, int] | None:
    """The second relation of a two_hop prompt, and the place of its fact that a fact leads on to; None for others."""
    second = next((r for r in experiment.relations if r.name == prompt.relation), None)
    if prompt.split != "two_hop" or second is None or place not in (hops := _hops(relation, second)):
        return None
    return second, hops[place]


def _hops(first: Relation, second: Relation) -> dict[int, int]:
    return led_on(first.explicit_facts, second.explicit_facts)


def _between(first: Fact, goal: Fact) -> Fact:
    return Fact.model_construct(subject=first.subject, object=goal.object, alternatives=goal.alternatives)
