"""Write out what an experiment leaves to the corpus: generated facts, shipped prompts, multiple-choice options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from engine.chains import in_order, led_on, source_of, subjects_from, turned
from engine.checks import contained_pairs, normalise, shorten
from engine.corpus.beginnings import check_beginnings
from engine.corpus.names import Sort, generate_facts, generate_facts_about, other_objects, sort_of_names
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
    made: dict[str, Relation] = {}
    for relation in in_order(experiment.relations):
        source = made.get(source_of(relation) or "")
        made[relation.name] = _with_facts(relation, experiment.seed, sorts[relation.name], source)
    relations = [_with_prompts(made[r.name], made) for r in experiment.relations]
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


def _with_facts(relation: Relation, seed: int, sort: Sort, source: Relation | None) -> Relation:
    """The relation with facts; about the objects of `source`, if there is one. Raises ValueError."""
    corpus = load_relations()
    data = corpus.get(relation.name)
    facts = relation.facts
    if data is None and (isinstance(facts, GeneratedFacts) or isinstance(relation.prompts, str)):
        raise ValueError(
            f"the corpus has no relation ‘{relation.name}’ (it has {', '.join(sorted(corpus))}): "
            "write its facts and prompts out"
        )
    if not isinstance(facts, GeneratedFacts):
        return relation
    assert data is not None
    if source is None:
        pairs = generate_facts(relation.name, seed, facts.generate, sort)
    else:
        known = corpus.get(source.name)
        if known and known.object_kind != data.subject_kind:
            raise ValueError(
                f"the subjects of ‘{relation.name}’ are of the kind {data.subject_kind}, and the objects of "
                f"‘{source.name}’ of the kind {known.object_kind}: name another relation in subjects_of"
            )
        subjects = subjects_from(source, relation)
        pairs = generate_facts_about(relation.name, seed, subjects, sort)
    return relation.model_copy(update={"facts": tuple(Fact(subject=s, object=o) for s, o in pairs)})


def _with_prompts(relation: Relation, others: Mapping[str, Relation]) -> Relation:
    """The relation with prompts; of the corpus's two_hop prompts only those to relations that its facts lead on to."""
    if not isinstance(relation.prompts, str):
        return relation
    data = load_relations()[relation.name]
    prompts = list(data.iter_prompts())
    if relation.prompts == "corpus with reasoning":
        facts = relation.explicit_facts
        leads = {name for name, other in others.items() if led_on(facts, other.explicit_facts)}
        prompts += [p for p in data.iter_reasoning() if p.about in leads or (p.split == "reversal" and turned(facts))]
    written = (Prompt(text=p.text, split=p.split, language=p.language, relation=p.about) for p in prompts)
    return relation.model_copy(update={"prompts": tuple(written)})


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
