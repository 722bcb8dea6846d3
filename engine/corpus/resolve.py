"""Write out what an experiment leaves to the corpus: generated facts, shipped prompts, multiple-choice options."""

from __future__ import annotations

from engine.checks import contained_pairs, normalise, shorten
from engine.corpus.beginnings import check_beginnings
from engine.corpus.names import generate_facts, generate_names
from engine.corpus.relations import RelationData, load_relations
from engine.experiment import Experiment, Fact, GeneratedFacts, Prompt, Relation


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with generated facts, corpus prompts and choice options written out; itself where they are.

    Raises ValueError when facts or prompts are left to a corpus that has no relation of that name, or when it cannot
    make that many names, or beginnings of texts to replay.
    """
    resolved = experiment if experiment.is_resolved else _written_out(experiment)
    check_beginnings(resolved)
    return resolved


def _written_out(experiment: Experiment) -> Experiment:
    seed, options = experiment.seed, experiment.evaluation.options
    relations = [_resolve_relation(relation, seed, options).model_dump() for relation in experiment.relations]
    return Experiment.from_data(experiment.model_dump() | {"relations": relations})


def _resolve_relation(relation: Relation, seed: int, options: int) -> Relation:
    corpus = load_relations()
    data = corpus.get(relation.name)
    if data is None and (isinstance(relation.facts, GeneratedFacts) or relation.prompts == "corpus"):
        raise ValueError(
            f"the corpus has no relation ‘{relation.name}’ (it has {', '.join(sorted(corpus))}): "
            "write its facts and prompts out"
        )
    facts = relation.facts
    if isinstance(facts, GeneratedFacts):
        facts = tuple(Fact(subject=s, object=o) for s, o in generate_facts(relation.name, seed, facts.generate))
    prompts = relation.prompts
    if prompts == "corpus":
        assert data is not None
        prompts = tuple(
            Prompt(text=text, split=split, language=language, relation=about)
            for text, split, language, about in data.iter_prompts()
        )
    chosen = relation.options or _options(facts, data, seed, options)
    if len(chosen) < 2 and not all(fact.alternatives for fact in facts):
        raise ValueError(
            f"the facts of ‘{relation.name}’ have one object, ‘{shorten(chosen[0])}’, so there is nothing to choose "
            "from: add facts with other objects, or give the relation’s options"
        )
    return relation.model_copy(update={"facts": facts, "prompts": prompts, "options": chosen})


def _options(facts: tuple[Fact, ...], data: RelationData | None, seed: int, count: int) -> tuple[str, ...]:
    """The facts' distinct objects, filled up with fictional names of the same kind where the corpus knows the kind.

    A filler that contains, or is contained in, another option is left out: it could not be told from it.
    """
    distinct: dict[str, str] = {}
    for fact in facts:
        distinct.setdefault(normalise(fact.object), fact.object)
    objects = list(distinct.values())[:count]
    if len(objects) < count and data is not None:
        for name in generate_names(data.object_kind, count, seed + 1):
            if len(objects) == count:
                break
            if not any(contained_pairs(normalise(x) for x in [*objects, name])) and name not in objects:
                objects.append(name)
    return tuple(objects)
