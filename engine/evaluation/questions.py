"""What is asked: the tables of facts and prompts, and the questions of one checkpoint.

The ids count from 1 in the experiment's order, so that they are the same in every process that reads the experiment;
they are the ids of the tables in storage/answers.py. Every relation has, before its own prompts, one *key prompt*: its
key template up to the object. All functions need a resolved experiment and raise ValueError otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.choices import place_of
from engine.corpus.sentences import key_prompt, question_text
from engine.experiment import Experiment, Fact, Prompt, Relation

KEY_SPLIT = "key"


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt about one fact, as text. `options` is empty when it is not asked as multiple choice."""

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
    """The languages in which a checkpoint (`base`, `memorised@EPOCH`, `generalised@EPOCH`) is asked.

    With `every_language_at: ends`, all of them at the base model and at the last generalised checkpoint, and stage 2's
    alone at the others (unless that one is not evaluated at all).
    """
    languages = experiment.languages
    ends = (experiment.checkpoints[0], experiment.checkpoints[-1])
    if experiment.evaluation.every_language_at == "every" or checkpoint in ends:
        return languages
    return tuple(x for x in languages if x == experiment.stage2.language) or languages


def questions_for(experiment: Experiment, checkpoint: str) -> list[Question]:
    """Every question a checkpoint is asked, by prompt and then by fact; the key prompts always."""
    languages = languages_for(experiment, checkpoint)
    questions: list[Question] = []
    first_fact = first_prompt = 1
    for relation in experiment.relations:
        facts = relation.explicit_facts
        chosen_facts = choice_facts(experiment, relation)
        chosen_prompts = _choice_prompts(experiment, relation)
        prompts = list(_prompts(experiment, relation))
        for place, (split, prompt) in enumerate(prompts):
            if split != KEY_SPLIT and prompt.language not in languages:
                continue
            for index, fact in enumerate(facts):
                choice = place in chosen_prompts and index in chosen_facts
                options = options_of(relation, fact) if choice else ()
                text = question_text(prompt.text, fact.subject)
                questions.append(Question(first_prompt + place, first_fact + index, text, fact.object, options))
        first_fact += len(facts)
        first_prompt += len(prompts)
    return questions


def count_questions(experiment: Experiment, checkpoint: str) -> int:
    """How many questions `questions_for` gives, without writing them out."""
    languages = languages_for(experiment, checkpoint)
    return sum(
        len(relation.explicit_facts) * (1 + sum(p.language in languages for p in relation.explicit_prompts))
        for relation in experiment.relations
    )


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


def _prompts(experiment: Experiment, relation: Relation) -> Iterator[tuple[str, Prompt]]:
    language = experiment.stage2.language
    yield KEY_SPLIT, Prompt(text=key_prompt(relation), split="train", language=language)
    for prompt in relation.explicit_prompts:
        yield prompt.split, prompt


def choice_facts(experiment: Experiment, relation: Relation) -> set[int]:
    """Indices of the facts asked as multiple choice: half held out, half trained, as far as there are enough of each.

    The held-out and trained facts come in an order drawn from the seed, so their first ones are a random sample.
    """
    wanted = experiment.evaluation.choice.facts
    held_out, trained = experiment.held_out_facts(relation), experiment.stage2_facts(relation)
    if wanted == "all":
        return {*held_out, *trained}
    from_trained = min(len(trained), max(wanted // 2, wanted - len(held_out)))
    return {*trained[:from_trained], *held_out[: wanted - from_trained]}


def _choice_prompts(experiment: Experiment, relation: Relation) -> set[int]:
    """Places, among the relation's prompts with the key prompt first, of those asked as multiple choice."""
    wanted = experiment.evaluation.choice.prompts
    seen: dict[tuple[str, str], int] = {}
    chosen = set()
    for place, (split, prompt) in enumerate(_prompts(experiment, relation)):
        group = (split, prompt.language)
        seen[group] = seen.get(group, 0) + 1
        if wanted == "all" or seen[group] <= wanted:
            chosen.add(place)
    return chosen
