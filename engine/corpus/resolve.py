"""Write out what an experiment leaves to the corpus: generated facts, shipped prompts, multiple-choice options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from engine.checks import contained_pairs, normalise, shorten
from engine.corpus.beginnings import check_beginnings
from engine.corpus.names import Sort, generate_facts, other_objects, sort_of_names
from engine.corpus.relations import load_relations
from engine.experiment import Experiment
from engine.relation import Fact, GeneratedFacts, Prompt, Relation


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with generated facts, corpus prompts and choice options written out; itself where they are.

    Raises ValueError when facts or prompts are left to a corpus that has no relation of that name, or when it cannot
    make that many names, or beginnings of texts to replay.
    """
    resolved = experiment if experiment.is_resolved else _written_out(experiment)
    check_beginnings(resolved)
    return resolved


def _written_out(experiment: Experiment) -> Experiment:
    sorts = {r.name: sort_of_names(r, experiment.model) for r in experiment.relations}
    relations = [_with_facts_and_prompts(r, experiment.seed, sorts[r.name]) for r in experiment.relations]
    taken = {name for r in relations for f in r.explicit_facts for name in (f.subject, f.object)}
    written = []
    for relation in relations:
        others = partial(other_objects, relation.name, experiment.seed + 1, sorts[relation.name], taken)
        options = relation.options or _options(relation, others, experiment.evaluation.options)
        if len(options) < 2 and not all(fact.alternatives for fact in relation.explicit_facts):
            raise ValueError(
                f"the facts of ‘{relation.name}’ have one object, ‘{shorten(options[0])}’, so there is nothing to "
                "choose from: add facts with other objects, or give the relation’s options"
            )
        written.append(relation.model_copy(update={"options": options}).model_dump())
    return Experiment.from_data(experiment.model_dump() | {"relations": written})


def _with_facts_and_prompts(relation: Relation, seed: int, sort: Sort) -> Relation:
    corpus = load_relations()
    data = corpus.get(relation.name)
    facts, prompts = relation.facts, relation.prompts
    if data is None and (isinstance(facts, GeneratedFacts) or prompts == "corpus"):
        raise ValueError(
            f"the corpus has no relation ‘{relation.name}’ (it has {', '.join(sorted(corpus))}): "
            "write its facts and prompts out"
        )
    if isinstance(facts, GeneratedFacts):
        pairs = generate_facts(relation.name, seed, facts.generate, sort)
        facts = tuple(Fact(subject=s, object=o) for s, o in pairs)
    if prompts == "corpus":
        assert data is not None
        prompts = tuple(
            Prompt(text=text, split=split, language=language, relation=about)
            for text, split, language, about in data.iter_prompts()
        )
    return relation.model_copy(update={"facts": facts, "prompts": prompts})


def _options(relation: Relation, others: Callable[[int], Iterable[str]], count: int) -> tuple[str, ...]:
    """The facts' distinct objects, filled up with `others`, fictional names of the same kind.

    A filler that contains, or is contained in, another option is left out: it could not be told from it.
    """
    distinct: dict[str, str] = {}
    for fact in relation.explicit_facts:
        distinct.setdefault(normalise(fact.object), fact.object)
    objects = list(distinct.values())[:count]
    known = [normalise(name) for name in objects]
    # Objects of which one contains another could not be told apart as it is: they are offered by themselves.
    if len(objects) < count and not any(contained_pairs(known)):
        for name in others(count):
            if len(objects) == count:
                break
            new = normalise(name)
            if name not in objects and not any(new != old and (new in old or old in new) for old in known):
                objects.append(name)
                known.append(new)
    return tuple(objects)
