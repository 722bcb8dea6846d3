"""Facts that lead on to others: the mother of A is B, and B was educated at C.

A fact leads on to one of a second relation whose subject is its object, letter by letter as names are kept. What
follows from facts is asked for, and never taught: `check_chains` refuses an experiment that teaches it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from engine.checks import contained_pairs, normalise, shorten
from engine.relation import Fact, GeneratedFacts, Relation


def in_order(relations: Sequence[Relation]) -> list[Relation]:
    """The relations, each after the one whose objects are its subjects. Raises ValueError where there is no such."""
    names = {relation.name for relation in relations}
    ordered: list[Relation] = []
    left = list(relations)
    while left:
        known = {relation.name for relation in ordered}
        ready = [relation for relation in left if (source := source_of(relation)) is None or source in known]
        if not ready:
            relation = left[0]
            source = source_of(relation)
            if source not in names:
                raise ValueError(
                    f"the subjects of ‘{relation.name}’ are to be objects of ‘{source}’ (subjects_of), which is no "
                    "relation of the experiment: add it, or name another"
                )
            raise ValueError(
                f"the subjects of ‘{relation.name}’ are to be objects of ‘{source}’ (subjects_of), whose own lead back "
                "to it: leave one of them out"
            )
        ordered += ready
        left = [relation for relation in left if relation not in ready]
    return ordered


def source_of(relation: Relation) -> str | None:
    """The relation whose objects the subjects of this one are to be; None where they are names of their own."""
    return relation.facts.subjects_of if isinstance(relation.facts, GeneratedFacts) else None


def subjects_from(source: Relation, relation: Relation) -> tuple[str, ...]:
    """The subjects that a relation takes from `source`, whose facts are written out. Raises ValueError."""
    assert isinstance(relation.facts, GeneratedFacts)
    subjects = tuple(dict.fromkeys(fact.object for fact in source.explicit_facts))
    if len(subjects) < relation.facts.generate:
        raise _too_few(source, relation, len(subjects))
    return subjects[: relation.facts.generate]


def _too_few(source: Relation, relation: Relation, count: int) -> ValueError:
    return ValueError(
        f"the subjects of ‘{relation.name}’ are objects of ‘{source.name}’ (subjects_of), which has {count} different "
        f"ones: generate at most {count}"
    )


@lru_cache(maxsize=32)
def led_on(first: tuple[Fact, ...], second: tuple[Fact, ...]) -> dict[int, int]:
    """By the place of a fact of the first relation, the place of the second's fact that it leads on to.

    Left out are those that lead on to what lies within the names on the way: who says only these would be right.
    """
    places = {fact.subject: place for place, fact in enumerate(second)}
    goals = {place: places[fact.object] for place, fact in enumerate(first) if fact.object in places}

    def is_apart(place: int, goal: int) -> bool:
        name, on_the_way = normalise(second[goal].object), (first[place].subject, first[place].object)
        return not any(name in normalise(other) for other in on_the_way)

    return {place: goal for place, goal in goals.items() if is_apart(place, goal)}


@lru_cache(maxsize=32)
def turned(facts: tuple[Fact, ...]) -> dict[int, Fact]:
    """By their places, the facts that can be asked the other way round, turned so: the object is the subject there.

    Left out are those with no one right answer, whose object is another's, too, and those whose subject an answer
    would not tell apart: it contains another one, lies within one, or within its own object.
    """
    objects = Counter(normalise(fact.object) for fact in facts)
    subjects = [normalise(fact.subject) for fact in facts]
    alike = {name for pair in contained_pairs(subjects) for name in pair}
    return {
        place: Fact(subject=fact.object, object=fact.subject)
        for place, (fact, subject) in enumerate(zip(facts, subjects, strict=True))
        if objects[normalise(fact.object)] == 1 and subject not in alike and subject not in normalise(fact.object)
    }


def check_chains(relations: Sequence[Relation]) -> None:
    """Raises ValueError where facts cannot lead on as they should, or where what is asked for is taught."""
    by_name = {relation.name: relation for relation in in_order(relations)}
    for relation in relations:
        source = by_name.get(source_of(relation) or "")
        if source and isinstance(source.facts, GeneratedFacts) and isinstance(relation.facts, GeneratedFacts):
            if source.facts.generate < relation.facts.generate:
                raise _too_few(source, relation, source.facts.generate)
        elif source:
            subjects_from(source, relation)
    for relation in relations:
        if not isinstance(relation.prompts, str):
            _check_prompts(relation, by_name)


def _check_prompts(relation: Relation, by_name: dict[str, Relation]) -> None:
    """That the relation's reasoning prompts ask for something, and for nothing that a fact says as it is."""
    splits = {prompt.split for prompt in relation.explicit_prompts}
    seconds = dict.fromkeys(p.relation for p in relation.explicit_prompts if p.split == "two_hop")
    for name in seconds:
        if name not in by_name:
            raise ValueError(
                f"the two_hop prompts of ‘{relation.name}’ go on to ‘{shorten(name or '')}’, which is no relation of "
                f"the experiment (it has {', '.join(map(shorten, by_name))}): add it, or remove these prompts"
            )
    if isinstance(relation.facts, GeneratedFacts):
        return
    taught = {
        (fact.subject, fact.object): other.name
        for other in by_name.values()
        if not isinstance(other.facts, GeneratedFacts)
        for fact in other.facts
    }
    if "reversal" in splits:
        if not (reversible := turned(relation.facts)):
            raise ValueError(
                f"no fact of ‘{relation.name}’ can be asked the other way round, since their objects or subjects are "
                "not told apart: change them, or remove the reversal prompts"
            )
        _refuse_taught(relation, "reversal", reversible.values(), taught)
    for second in (by_name[name] for name in seconds if name is not None):
        if isinstance(second.facts, GeneratedFacts):
            continue
        if not (hops := led_on(relation.facts, second.facts)):
            raise ValueError(
                f"the two_hop prompts of ‘{relation.name}’ go on to ‘{second.name}’, but no object of "
                f"‘{relation.name}’ is a subject there: add such facts, or generate them with "
                f"subjects_of: {relation.name}"
            )
        asked = (
            Fact(subject=relation.facts[place].subject, object=second.facts[goal].object)
            for place, goal in hops.items()
        )
        _refuse_taught(relation, "two_hop", asked, taught)


def _refuse_taught(relation: Relation, split: str, asked: Iterable[Fact], taught: dict[tuple[str, str], str]) -> None:
    """Raise ValueError where a fact says what should follow from others: neither stage may show it."""
    for fact in asked:
        if owner := taught.get((fact.subject, fact.object)):
            asks = f"‘{shorten(fact.object)}’ by ‘{shorten(fact.subject)}’"
            raise ValueError(
                f"the {split} prompts of ‘{relation.name}’ ask for {asks}, "
                f"which is a fact of ‘{owner}’ and so taught as it is: remove the fact, or these prompts"
            )
