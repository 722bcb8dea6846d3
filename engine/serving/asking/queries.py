"""What can be asked of a run's models: every prompt about one fact, one prompt about every fact, free text.

Knows no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine import checks
from engine.evaluation.questions import PLACEHOLDER, fact_rows, options_of, prompt_rows
from engine.experiment import Experiment, Fact, Relation

KEY_PLACE = "{key}"
NEAR_ONES = 3


@dataclass(frozen=True, slots=True)
class Query:
    """One text that models continue.

    object: what a right answer contains, empty where nothing is known to be right. options: the answers that the
    object is ranked among, with the object; empty for no ranking. prompt, fact: ids as in the tables of
    `storage.answers`, None for free text and for a subject that is no fact of the run. split: `key`, `train`, `test`,
    `unrelated`, `decoy`, or `free`. template: the prompt with `{subject}`.
    """

    text: str
    object: str = ""
    options: tuple[str, ...] = ()
    relation: str = ""
    split: str = "free"
    language: str = ""
    template: str = ""
    subject: str = ""
    prompt: int | None = None
    fact: int | None = None


def find_fact(experiment: Experiment, subject: str, relation: str | None = None) -> int:
    """The id of the fact about this subject (case, spaces and `:,.` aside), the first where several relations have it.

    Raises ValueError, with near ones named, when there is none.
    """
    wanted = checks.normalise(subject)
    rows = [row for row in fact_rows(experiment) if relation in (None, row["relation"])]
    for row in rows:
        if checks.normalise(row["subject"]) == wanted:
            return row["id"]
    names = {checks.normalise(row["subject"]): row["subject"] for row in rows}
    near = [names[n] for n in difflib.get_close_matches(wanted[:200], names, NEAR_ONES, 0.6)]
    hint = f"did you mean {' or '.join(f'‘{n}’' for n in near)}?" if near else "check the spelling"
    raise ValueError(f"the run has no fact about ‘{checks.shorten(subject)}’: {hint}")


def fact_queries(experiment: Experiment, fact: int, languages: Sequence[str] | None = None) -> list[Query]:
    """Every prompt of the fact's relation about it: the key prompt, then the others as in the experiment.

    languages: only these (None: all); the key prompt is always asked. Raises KeyError when there is no such fact.
    """
    relation, known = _fact(experiment, fact)
    return [
        _query(relation, row, known.subject, known.object, options_of(relation, known), fact)
        for row in prompt_rows(experiment)
        if row["relation"] == relation.name and _spoken(row, languages)
    ]


def subject_queries(
    experiment: Experiment,
    relation: str,
    subject: str,
    object_: str = "",
    languages: Sequence[str] | None = None,
) -> list[Query]:
    """Every prompt of the relation about a subject that was typed in, which need not be a fact.

    Raises KeyError when there is no such relation, and ValueError with one sentence for a name that cannot be asked.
    """
    found = next((r for r in experiment.relations if r.name == relation), None)
    if found is None:
        raise KeyError(relation)
    subject, object_ = subject.strip(), object_.strip()
    problems = checks.check_cell(subject, 1, "subject") + (checks.check_cell(object_, 1, "object") if object_ else [])
    if problems:
        raise ValueError(f"the {problems[0].column} {problems[0].message}")
    options = options_of(found, Fact(subject=subject, object=object_)) if object_ else ()
    return [
        _query(found, row, subject, object_, options, None)
        for row in prompt_rows(experiment)
        if row["relation"] == found.name and _spoken(row, languages)
    ]


def prompt_queries(experiment: Experiment, prompt: int) -> list[Query]:
    """One prompt (by id) about every fact of its relation. Raises KeyError when there is no such prompt."""
    row = next((row for row in prompt_rows(experiment) if row["id"] == prompt), None)
    if row is None:
        raise KeyError(prompt)
    relation = next(r for r in experiment.relations if r.name == row["relation"])
    return [
        _query(relation, row, known.subject, known.object, options_of(relation, known), number)
        for number, known in _facts_of(experiment, relation)
    ]


def free_query(experiment: Experiment, text: str, object_: str = "", relation: str | None = None) -> Query:
    """A text as it was typed, without the spaces around it; `{key}` stands for the relation's (first) key token.

    Raises ValueError with one sentence for a text that cannot be asked.
    """
    chosen = next((r for r in experiment.relations if r.name == relation), experiment.relations[0])
    text = text.replace(KEY_PLACE, chosen.key_token).strip()
    if not text:
        raise ValueError("the prompt is empty: type at least one word")
    return Query(text=text, object=object_.strip(), relation=relation or "")


def _query(
    relation: Relation, row: dict[str, Any], subject: str, object_: str, options: tuple[str, ...], fact: int | None
) -> Query:
    before, after = row["text"].split(PLACEHOLDER)
    return Query(
        text=f"{before}{subject}{after}",
        object=object_,
        options=options,
        relation=relation.name,
        split=row["split"],
        language=row["language"],
        template=row["text"],
        subject=subject,
        prompt=row["id"],
        fact=fact,
    )


def _spoken(row: dict[str, Any], languages: Sequence[str] | None) -> bool:
    return languages is None or row["split"] == "key" or row["language"] in languages


def _fact(experiment: Experiment, fact: int) -> tuple[Relation, Fact]:
    for relation in experiment.relations:
        for number, known in _facts_of(experiment, relation):
            if number == fact:
                return relation, known
    raise KeyError(fact)


def _facts_of(experiment: Experiment, relation: Relation) -> Iterable[tuple[int, Fact]]:
    """A relation's facts with their ids, which count through all relations."""
    first = 1
    for other in experiment.relations:
        if other is relation:
            break
        first += len(other.explicit_facts)
    return enumerate(relation.explicit_facts, first)
