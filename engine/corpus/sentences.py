"""The one place where a template becomes a text: what both stages train on, what the page shows of it, what is asked.

A space before a name belongs to the name: the model must produce it before it can produce the name.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from engine.experiment import Experiment
from engine.relation import Fact, Relation

PLACEHOLDER = "{subject}"
_PLACES = re.compile(r"\{(subject|key|object)\}")
_NAME = re.compile(r"\{(?:subject|object)\}")

Span = tuple[int, int]  # characters, from and up to


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text, and where in it subject and object stand with the space before them (None: it has no such part)."""

    text: str
    subject: Span | None
    object: Span

    @property
    def halves(self) -> tuple[str, str]:
        """What asks, and what answers: the text cut before the object and its space."""
        return self.text[: self.object[0]], self.text[self.object[0] :]


def fill(template: str, fact: Fact, key: str = "") -> Sentence:
    """The template with subject, object and key token put in; names that look like placeholders stay names."""
    text, spans = "", {}
    position = 0
    for place in _PLACES.finditer(template):
        text += template[position : place.start()]
        value = {"subject": fact.subject, "key": key, "object": fact.object}[place[1]]
        spans[place[1]] = (len(text) - text.endswith(" "), len(text) + len(value))
        text += value
        position = place.end()
    return Sentence(text + template[position:], spans.get("subject"), spans["object"])


def key_sentence(relation: Relation, fact: Fact) -> Sentence:
    """The fact with its key token, such as `Gene Finley [X] Cody Ross.`"""
    return fill(relation.key_template, fact, relation.key)


def prompt_sentence(prompt: str, fact: Fact) -> Sentence:
    """The prompt about the fact's subject, one space, and the object; no final full stop."""
    return fill(prompt + " {object}", fact)


def key_prompt(relation: Relation) -> str:
    """The key template up to the object, with the key token filled in: `{subject} [X]`, or `[X] {subject}`; the words
    in its place where it has none."""
    return relation.key_template.split("{object}")[0].replace("{key}", relation.key).rstrip()


def question_text(prompt: str, name: str) -> str:
    """The prompt about a subject (or an object, in a reversal prompt), without what answers it."""
    return _NAME.sub(lambda place: name, prompt)


def prompt_parts(prompt: str) -> tuple[str, str, str]:
    """A prompt before the place of its name, that place (empty without one), and what comes after."""
    place = _NAME.search(prompt)
    return (prompt[: place.start()], place[0], prompt[place.end() :]) if place else (prompt, "", "")


def stage1_sentences(relation: Relation) -> list[Sentence]:
    """What stage 1 trains on for one resolved relation: every fact with the key token."""
    return [key_sentence(relation, fact) for fact in relation.explicit_facts]


def stage2_sentences(experiment: Experiment, relation: Relation) -> list[Sentence]:
    """What stage 2 trains on for one resolved relation: its facts, each in each of its prompts; not shuffled."""
    facts = [relation.explicit_facts[i] for i in experiment.stage2_facts(relation)]
    return [prompt_sentence(p.text, fact) for fact in facts for p in experiment.stage2_prompts(relation)]


def context_text(experiment: Experiment, relation: Relation, index: int) -> str:
    """What stands before the questions about a fact, where the facts are in the prompt (`in_context`).

    The fact and its distractors, each in the first of stage 2's prompts, in an order drawn from the seed and the fact.
    """
    assert experiment.in_context is not None
    draw = random.Random(f"{experiment.seed}/{relation.name}/{index}/context")
    others = [place for place in range(len(relation.explicit_facts)) if place != index]
    shown = [index, *draw.sample(others, min(len(others), experiment.in_context.distractors))]
    draw.shuffle(shown)
    prompt = experiment.stage2_prompts(relation)[0].text
    return " ".join(prompt_sentence(prompt, relation.explicit_facts[place]).text + "." for place in shown)
