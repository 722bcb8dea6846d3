"""From a run's experiment and what a person typed to the questions that models are asked.

The Ask page, its functions for scripts and the command line put their questions through here, so that the same words
ask the same thing everywhere. What cannot be asked raises AskError. Knows no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine import checks
from engine.checks import shorten
from engine.corpus.reasoning import asked_by
from engine.corpus.sentences import question_text
from engine.evaluation.questions import KEY_SPLIT, fact_rows, options_of, prompt_rows
from engine.experiment import Experiment
from engine.relation import REASONING, Fact, Prompt, Relation
from storage.askings import FREE, Question
from storage.database import storable

KEY_PLACE = "{key}"
NEAR_ONES = 3
FREE_PROMPT = {"split": FREE, "language": "", "about": None, "id": None}
FactRow = dict[str, Any]


class AskError(ValueError):
    """What was asked cannot be asked; the text says why to whoever asked."""

    def __init__(self, words: str) -> None:
        super().__init__(storable(words))


def find_relation(experiment: Experiment, name: str = "") -> Relation:
    """The relation of that name; without a name, the first one. Raises AskError."""
    for relation in experiment.relations:
        if name in ("", relation.name):
            return relation
    known = ", ".join(r.name for r in experiment.relations[:10])
    raise AskError(f"the run has no relation ‘{shorten(name)}’; it has {known}")


def find_fact(experiment: Experiment, subject: str, relation: str = "") -> FactRow | None:
    """The fact about this subject (case, spaces and `:,.` aside), the first where several relations have it.

    A row of `fact_rows`; None when the run has no fact about it.
    """
    wanted = checks.normalise(subject)
    rows = (row for row in fact_rows(experiment) if relation in ("", row["relation"]))
    return next((row for row in rows if checks.normalise(row["subject"]) == wanted), None)


def near_subjects(experiment: Experiment, subject: str, relation: str = "") -> list[str]:
    """The subjects of facts that somebody who typed this one may have meant, the nearest first."""
    rows = [row for row in fact_rows(experiment) if relation in ("", row["relation"])]
    names = {checks.normalise(row["subject"]): row["subject"] for row in rows}
    near = difflib.get_close_matches(checks.normalise(subject)[:200], names, NEAR_ONES, 0.6)
    return [names[name] for name in near]


def no_fact(experiment: Experiment, subject: str, relation: str = "") -> AskError:
    """What to say of a subject that is no fact's, with near ones named."""
    near = " or ".join(f"‘{name}’" for name in near_subjects(experiment, subject, relation))
    hint = f"did you mean {near}?" if near else "check the spelling"
    return AskError(f"the run has no fact about ‘{shorten(subject)}’: {hint}")


def fact_questions(
    experiment: Experiment, subject: str, relation: str = "", object: str = "", languages: Sequence[str] = ()
) -> list[Question]:
    """Every prompt of a relation about one subject: the key prompt, stage 2's language, then the others.

    subject: of a fact, whose object is then known, or any other name. relation: needed for one of several relations;
    else it is the fact's, or the first. object: a right answer that the run doesn't know. languages: only these
    (empty: all); the key prompt is always asked. Reversal and two_hop prompts are left out where they cannot be put to
    the fact; of other names a reversal prompt needs the object.
    """
    subject, fact, chosen = _about(experiment, subject, relation)
    spoken = dict.fromkeys(p.language for p in chosen.explicit_prompts)
    if unknown := [x for x in languages if x not in spoken]:
        raise AskError(f"the run has no prompts in ‘{shorten(unknown[0])}’; it has {', '.join(spoken)}")
    order = [experiment.stage2.language, *spoken]
    rows = [
        row
        for row in prompt_rows(experiment)
        if row["relation"] == chosen.name
        and (not languages or row["split"] == KEY_SPLIT or row["language"] in languages)
    ]
    rows.sort(key=lambda row: (row["split"] != KEY_SPLIT, order.index(row["language"])))
    questions = []
    for row in rows:
        if pair := _pair(experiment, chosen, row, fact, subject, object):
            questions.append(_asked(row, fact, pair))
        elif row["split"] not in REASONING:
            questions.append(_question(row, subject, fact, object))
        elif row["split"] == "two_hop" and fact is None:
            questions.append(_question(row, subject, None))
    return with_options(experiment, chosen.name, questions)


def text_question(
    experiment: Experiment, text: str, relation: str = "", subject: str = "", object: str = ""
) -> Question:
    """A text as it was typed, where `{key}` stands for the relation's key token and `{subject}` for the subject.

    It is judged by the object if one is given, else by the fact about the subject, or the fact whose subject the text
    names (the longest one, if there are several; where two relations share it, the key token tells which is meant).
    """
    if subject:
        subject, fact, chosen = _about(experiment, subject, relation)
        known = relation or (chosen.name if fact else "")
    else:
        told = {r.name for r in experiment.relations if r.key and r.key in text}
        named = [r for r in fact_rows(experiment) if relation in ("", r["relation"]) and r["subject"] in text]
        fact = max(named, key=lambda r: (r["relation"] in told, len(r["subject"])), default=None)
        known = fact["relation"] if fact else relation
        chosen = find_relation(experiment, known)
    text = storable(text).replace(KEY_PLACE, chosen.key)
    if not text.strip():
        raise AskError("the prompt is empty: type at least one word")
    question = _question(FREE_PROMPT | {"text": text}, subject, fact, object)
    return with_options(experiment, known, [question])[0]


def facts_questions(experiment: Experiment, prompt: str, relation: str = "") -> list[Question]:
    """One prompt about every fact of the relation, the held-out ones first; `{key}` stands for its key token.

    A reversal or two_hop prompt of the relation's own is asked of those facts alone that it can be put to.
    """
    chosen = find_relation(experiment, relation)
    text = " ".join(storable(prompt).replace(KEY_PLACE, chosen.key).split())
    own = (row for row in prompt_rows(experiment) if (row["relation"], row["text"]) == (chosen.name, text))
    row: dict[str, Any] = next(own, FREE_PROMPT | {"text": text})
    if text.count(checks.place_in(row["split"])) != 1:
        raise AskError("the prompt for all facts needs {subject} exactly once, where each fact's subject goes")
    facts = sorted((f for f in fact_rows(experiment) if f["relation"] == chosen.name), key=lambda f: f["trained"])
    pairs = [(fact, _pair(experiment, chosen, row, fact, fact["subject"])) for fact in facts]
    if row["split"] in REASONING:
        return with_options(experiment, chosen.name, [_asked(row, fact, pair) for fact, pair in pairs if pair])
    return with_options(experiment, chosen.name, [_question(row, fact["subject"], fact) for fact in facts])


def with_options(experiment: Experiment, relation: str, questions: Sequence[Question]) -> list[Question]:
    """Questions of one relation with the options that their objects are ranked among; none without an object."""
    chosen = next((r for r in experiment.relations if r.name == relation), None)
    asked: dict[tuple[str, str | None], tuple[Relation, dict[tuple[str, str], Fact]]] = {}

    def options(q: Question) -> tuple[str, ...]:
        if chosen is None or not q.subject or not q.object:
            return ()
        kind = (q.split, q.about) if q.split in REASONING else ("", None)
        if kind not in asked:
            found = asked_by(experiment, chosen, _prompt(*kind))
            asked[kind] = found.relation, {(f.subject, f.object): f for f in found.facts.values()}
        owner, facts = asked[kind]
        options = options_of(owner, facts.get((q.subject, q.object)) or Fact(subject=q.subject, object=q.object))
        return options if len(options) > 1 else ()

    return [replace(q, relation=relation, options=options(q)) for q in questions]


def _about(experiment: Experiment, subject: str, relation: str) -> tuple[str, FactRow | None, Relation]:
    """A typed subject as its fact spells it, the fact if there is one, and the relation."""
    typed = " ".join(storable(subject).split())
    if not typed:
        raise AskError("choose a fact, or type a subject, to ask about")
    if problems := checks.check_cell(typed, 1, "subject"):
        raise AskError(f"the subject {problems[0].message}")
    fact = find_fact(experiment, typed, relation)
    return fact["subject"] if fact else typed, fact, find_relation(experiment, fact["relation"] if fact else relation)


def _prompt(split: str, about: str | None) -> Prompt:
    return Prompt.model_construct(text="", split=split, language="", relation=about)


def _pair(
    experiment: Experiment,
    relation: Relation,
    row: dict[str, Any],
    fact: FactRow | None,
    subject: str,
    object: str = "",
) -> Fact | None:
    """The name that a reasoning prompt (a row of `prompt_rows`) has and its right answer, as a fact; None for other
    prompts, and where that is not known: a typed subject whose object is typed, too, can be asked the other way round.
    """
    if row["split"] not in REASONING:
        return None
    asked = asked_by(experiment, relation, _prompt(row["split"], row["about"])).facts
    place = next((i for i, f in enumerate(relation.explicit_facts) if fact and f.subject == fact["subject"]), None)
    if place is not None:
        return asked.get(place)
    known = " ".join(storable(object).split())
    return Fact(subject=known, object=subject) if row["split"] == "reversal" and known else None


def _asked(row: dict[str, Any], fact: FactRow | None, pair: Fact) -> Question:
    """The question of a reasoning prompt about such a pair."""
    question = _question(row, pair.subject, None, pair.object)
    return replace(question, trained=fact["trained"] if fact else None, fact_id=fact["id"] if fact else None)


def _question(prompt: dict[str, Any], subject: str, fact: FactRow | None, object: str = "") -> Question:
    """A prompt (a row of `prompt_rows`) about a subject, or about the fact that it names. object: a typed one."""
    object = storable(object).strip()
    if object and (problems := checks.check_cell(object, 1, "object")):
        raise AskError(f"the object {problems[0].message}")
    return Question(
        text=question_text(prompt["text"], subject) if subject else prompt["text"],
        split=prompt["split"],
        language=prompt["language"],
        prompt=prompt["text"],
        subject=subject or (fact["subject"] if fact else ""),
        object=object or (fact["object"] if fact else None) or None,
        about=prompt["about"],
        trained=fact["trained"] if fact else None,
        prompt_id=prompt["id"],
        fact_id=fact["id"] if fact else None,
    )
