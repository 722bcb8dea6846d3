"""What is asked: the tables of facts and prompts, and the questions of one checkpoint.

The ids count from 1 in the experiment's order, so that they are the same in every process that reads the experiment;
they are the ids of the tables in storage/answers.py. Every relation has, before its own prompts, one *key prompt*: its
key template up to the object. All functions need a resolved experiment and raise ValueError otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.choices import place_of
from engine.corpus.reasoning import Asked, asked_by, passed_through
from engine.corpus.sentences import context_text, key_prompt, question_text
from engine.experiment import IN_CONTEXT, Experiment
from engine.relation import REASONING, Fact, Prompt, Relation

KEY_SPLIT = "key"


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt about one fact, as text. `object`: what a right answer contains, which reasoning prompts ask of other
    names than the fact's object. `options` is empty when it is not asked as multiple choice."""

    prompt: int
    fact: int
    text: str
    object: str
    options: tuple[str, ...] = ()


def fact_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """One row a fact: `id, relation, subject, object, trained` (1 when stage 2 trains on it)."""
    rows: list[dict[str, Any]] = []
    for relation in experiment.relations:
        trained = set(experiment.stage2_facts(relation))
        for index, fact in enumerate(relation.explicit_facts):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "relation": relation.name,
                    "subject": fact.subject,
                    "object": fact.object,
                    "trained": int(index in trained),
                }
            )
    return rows


def prompt_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """One row a prompt: `id, relation, split, language, text, about, used` (1 when stage 2 trains on it)."""
    rows: list[dict[str, Any]] = []
    for relation in experiment.relations:
        used = set(experiment.stage2_prompts(relation))
        for split, prompt in _prompts(experiment, relation):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "relation": relation.name,
                    "split": split,
                    "language": prompt.language,
                    "text": prompt.text,
                    "about": prompt.relation,
                    "used": int(split != KEY_SPLIT and prompt in used),
                }
            )
    return rows


def languages_for(experiment: Experiment, checkpoint: str) -> tuple[str, ...]:
    """The languages in which a checkpoint (`base`, `context@0`, `memorised@EPOCH`, `generalised@EPOCH`) is
    asked.

    With `every_language_at: ends`, all of them at the base model and at the last generalised checkpoint, with `last` at
    that alone, and stage 2's at the others (unless that one is not evaluated at all).
    """
    languages, checkpoints = experiment.languages, experiment.checkpoints
    everywhere = {"every": checkpoints, "ends": (checkpoints[0], checkpoints[-1]), "last": checkpoints[-1:]}
    if checkpoint in everywhere[experiment.evaluation.every_language_at]:
        return languages
    return tuple(x for x in languages if x == experiment.stage2.language) or languages


def questions_for(experiment: Experiment, checkpoint: str) -> list[Question]:
    """Every question a checkpoint is asked, by prompt and then by fact; the key prompts always.

    Of the facts and prompts in the experiment's sample, which is the same for every checkpoint. With the facts in the
    prompt (`in_context`), their text stands before the question's own, of all facts that it takes to answer it.
    """
    contexts: dict[tuple[str, int], str] = {}

    def before(relation: Relation, index: int) -> str:
        if (name := (relation.name, index)) not in contexts:
            contexts[name] = context_text(experiment, relation, index)
        return contexts[name]

    languages = languages_for(experiment, checkpoint)
    questions: list[Question] = []
    first_fact = first_prompt = 1
    for relation in experiment.relations:
        facts = relation.explicit_facts
        asked_facts, chosen_facts = sorted(asked_about(experiment, relation)), choice_facts(experiment, relation)
        asked_prompts, chosen_prompts = _asked_prompts(experiment, relation), _choice_prompts(experiment, relation)
        prompts = list(_prompts(experiment, relation))
        for place in asked_prompts:
            split, prompt = prompts[place]
            if split != KEY_SPLIT and prompt.language not in languages:
                continue
            asked = asked_by(experiment, relation, prompt)
            for index in asked_facts:
                if (fact := asked.facts.get(index)) is None:
                    continue
                choice = place in chosen_prompts and index in chosen_facts
                options = options_among(asked, fact) if choice else ()
                text = question_text(prompt.text, fact.subject)
                if checkpoint == IN_CONTEXT:
                    passed = passed_through(experiment, relation, prompt, index)
                    text = " ".join([*(before(*place) for place in ((relation, index), passed) if place), text])
                questions.append(Question(first_prompt + place, first_fact + index, text, fact.object, options))
        first_fact += len(facts)
        first_prompt += len(prompts)
    return questions


def count_questions(experiment: Experiment, checkpoint: str) -> int:
    """How many questions `questions_for` gives, without writing them out."""
    return sum(
        sum(count for _, count in prompt_counts(experiment, relation, checkpoint)) for relation in experiment.relations
    )


def count_choices(experiment: Experiment, checkpoint: str) -> int:
    """How many of a checkpoint's questions are also asked as multiple choice."""
    return sum(
        sum(count for _, count, _ in choice_counts(experiment, relation, checkpoint))
        for relation in experiment.relations
    )


def prompt_counts(experiment: Experiment, relation: Relation, checkpoint: str) -> list[tuple[str, int]]:
    """The templates that a checkpoint is asked with, the key prompt first, and about how many facts each."""
    about = asked_about(experiment, relation)
    chosen = _chosen(experiment, relation, checkpoint, _asked_prompts(experiment, relation))
    return [(prompt.text, len(about & asked.facts.keys())) for prompt, asked in chosen]


def choice_counts(experiment: Experiment, relation: Relation, checkpoint: str) -> list[tuple[str, int, int]]:
    """Those of them that are also asked as multiple choice, about how many facts each, among how many options."""
    about, counts = choice_facts(experiment, relation), []
    for prompt, asked in _chosen(experiment, relation, checkpoint, _choice_prompts(experiment, relation)):
        facts = [asked.facts[index] for index in about & asked.facts.keys()]
        options = len(options_among(asked, facts[0])) if facts else 0
        counts.append((prompt.text, len(facts), options))
    return counts


def _chosen(
    experiment: Experiment, relation: Relation, checkpoint: str, places: list[int]
) -> Iterator[tuple[Prompt, Asked]]:
    languages, prompts = languages_for(experiment, checkpoint), list(_prompts(experiment, relation))
    for split, prompt in (prompts[place] for place in places):
        if split == KEY_SPLIT or prompt.language in languages:
            yield prompt, asked_by(experiment, relation, prompt)


def right_answers(experiment: Experiment) -> Callable[[int, int], str]:
    """A function from the ids of a prompt and a fact to what a right answer contains."""
    objects = [fact.object for relation in experiment.relations for fact in relation.explicit_facts]
    other: dict[int, dict[int, str]] = {}
    first_fact = first_prompt = 1
    for relation in experiment.relations:
        prompts = list(_prompts(experiment, relation))
        for number, (split, prompt) in enumerate(prompts, first_prompt):
            if split in REASONING:
                asked = asked_by(experiment, relation, prompt)
                other[number] = {first_fact + place: fact.object for place, fact in asked.facts.items()}
        first_fact += len(relation.explicit_facts)
        first_prompt += len(prompts)
    return lambda prompt, fact: other[prompt][fact] if prompt in other else objects[fact - 1]


def sampled_facts(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """How many held-out and trained facts of all relations are asked about, and how many there are."""
    counts = {"held-out": [0, 0], "trained": [0, 0]}
    for relation in experiment.relations:
        about, trained = asked_about(experiment, relation), set(experiment.stage2_facts(relation))
        for index in range(len(relation.explicit_facts)):
            count = counts["trained" if index in trained else "held-out"]
            count[0] += index in about
            count[1] += 1
    return {kind: (asked, there) for kind, (asked, there) in counts.items()}


def sampled_prompts(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """For each split, how many prompts of stage 2's language are asked, and how many there are, over all relations."""
    asked: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for relation in experiment.relations:
        prompts, chosen = list(_prompts(experiment, relation)), set(_asked_prompts(experiment, relation))
        for place, (split, prompt) in enumerate(prompts):
            if split != KEY_SPLIT and prompt.language == experiment.stage2.language:
                asked[split] += place in chosen
                there[split] += 1
    return {split: (asked[split], there[split]) for split in there}


def key_questions(experiment: Experiment, count: int) -> list[Question]:
    """The key prompt about the first `count` facts of each relation."""
    return [
        Question(number, place, question_text(key_prompt(relation), fact.subject), fact.object)
        for number, relation in enumerate(experiment.relations, 1)
        for place, fact in enumerate(relation.explicit_facts[:count], 1)
    ]


def options_of(relation: Relation, fact: Fact) -> tuple[str, ...]:
    """The multiple-choice options of a fact: its own alternatives if it brings some, else the relation's.

    The object is always among them, as the fact spells it; where the relation's options lack it, it takes the place of
    the last one.
    """
    if fact.alternatives:
        return tuple(dict.fromkeys((fact.object, *fact.alternatives)))
    options, place = relation.options, place_of(relation.options, fact.object)
    place = len(options) - 1 if place is None else place
    return options if options[place] == fact.object else (*options[:place], fact.object, *options[place + 1 :])


def options_among(asked: Asked, fact: Fact) -> tuple[str, ...]:
    """The options of one of the facts that a prompt asks; none where there is nothing to choose from."""
    options = options_of(asked.relation, fact)
    return options if len(options) > 1 else ()


def _prompts(experiment: Experiment, relation: Relation) -> Iterator[tuple[str, Prompt]]:
    language = experiment.stage2.language
    yield KEY_SPLIT, Prompt(text=key_prompt(relation), split="train", language=language)
    for prompt in relation.explicit_prompts:
        yield prompt.split, prompt


def asked_about(experiment: Experiment, relation: Relation) -> set[int]:
    """Indices of the facts that are asked about at all (`evaluation.facts`), as far as a prompt can be put to them."""
    return _sampled_facts(experiment, relation, experiment.evaluation.facts)


def choice_facts(experiment: Experiment, relation: Relation) -> set[int]:
    """Indices of the facts asked as multiple choice: never more than are asked about at all."""
    evaluation = experiment.evaluation
    return _sampled_facts(experiment, relation, _fewer(evaluation.facts, evaluation.choice.facts))


def _sampled_facts(experiment: Experiment, relation: Relation, wanted: int | str) -> set[int]:
    """Half held out, half trained, as far as there are enough of each; a smaller sample is within a larger one.

    The held-out and trained facts come in an order drawn from the seed, so their first ones are a random sample.
    """
    held_out, trained = experiment.held_out_facts(relation), experiment.stage2_facts(relation)
    if isinstance(most := experiment.evaluation.trained_facts, int):
        trained = trained[:most]
    if isinstance(wanted, str):
        return {*held_out, *trained}
    from_trained = min(len(trained), max(wanted // 2, wanted - len(held_out)))
    return {*trained[:from_trained], *held_out[: wanted - from_trained]}


def _asked_prompts(experiment: Experiment, relation: Relation) -> list[int]:
    return _first_prompts(experiment, relation, experiment.evaluation.prompts)


def _choice_prompts(experiment: Experiment, relation: Relation) -> list[int]:
    evaluation = experiment.evaluation
    return _first_prompts(experiment, relation, _fewer(evaluation.prompts, evaluation.choice.prompts))


def _first_prompts(experiment: Experiment, relation: Relation, wanted: int | str) -> list[int]:
    """Places of the first prompts of each split and language, among the relation's with the key prompt first.

    Stage 2 uses the first train prompts too, so that these come before any that it doesn't.
    """
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for place, (split, prompt) in enumerate(_prompts(experiment, relation)):
        seen[split, prompt.language] += 1
        if isinstance(wanted, str) or seen[split, prompt.language] <= wanted:
            chosen.append(place)
    return chosen


def _fewer(asked: int | str, chosen: int | str) -> int | str:
    """The smaller sample; `all` is the largest."""
    return min(asked, chosen, key=lambda n: float("inf") if isinstance(n, str) else n)
