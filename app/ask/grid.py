"""The grid of the Ask page: prompts (or facts) down, models across, made ready for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.ask.view import View, opened, shown_columns
from app.asking.columns import column_label, column_parts, judged
from app.shared.lab import Lab
from app.shared.words import LANGUAGES, SPLITS
from engine.corpus import sentences
from engine.experiment import Experiment
from engine.serving.asking.questions import near_subjects
from storage import askings
from storage.asking_queue import get_alternatives
from storage.askings import Answer, Asking, Column, Question
from storage.checkpoints import CheckpointName

# In these the object is a wrong answer: a hit is nothing to be glad of.
NEGATIVE = ("unrelated", "decoy")
FOLDED_FROM = 30


@dataclass(frozen=True)
class Cell:
    """What stands where a question meets a model: its answer, or that it is waited for."""

    answer: Answer | None
    place: str
    waits: bool
    negative: bool


def grid_of(lab: Lab, view: View) -> dict[str, Any] | None:
    """Everything that the template of the grid needs; None when there is no such asking."""
    try:
        asking = askings.get_asking(lab.db, view.asked)
    except KeyError:
        return None
    kept = {c.model: c for c in askings.list_columns(lab.db, asking.id)}
    models = shown_columns(view, list(kept.values()))
    questions = askings.list_questions(lab.db, asking.id)
    given = (judged(lab, asking.run, a) for a in askings.list_answers(lab.db, asking.id, models))
    answers = {(a.question.number, a.model): a for a in given}
    columns = [_column(lab, asking, model, kept.get(model)) for model in models]
    groups = _groups(asking, questions, answers, columns, view)
    shown = [kept[m] for m in models if m in kept]
    unknown = asking.kind == "fact" and asking.object is None
    return {
        "asking": asking,
        "view": view,
        "columns": columns,
        "groups": groups,
        "sections": _sections(groups),
        "asked": sum(c.questions for c in shown),
        "answered": sum(c.answered for c in shown),
        "busy": any(c.busy for c in shown),
        "judged": next((q for q in questions if q.object), None),
        "near": near(lab, asking.run, asking.subject, asking.relation) if unknown else (),
        "settings": asking.settings,
        "here": opened(view.answer),
        "aloud": any(a.says_key_token for a in answers.values()),
    }


@lru_cache(maxsize=256)
def near(lab: Lab, run: str, subject: str, relation: str) -> tuple[str, ...]:
    """The subjects that may have been meant by one that is no fact of the run. A run's facts never change."""
    kept = lab.run(run)
    return tuple(near_subjects(Experiment.from_record(kept.experiment), subject, relation)) if kept else ()


def signature(lab: Lab, view: View) -> str:
    """Changes whenever the grid or the opened answer would be drawn differently; cheap."""
    columns = askings.list_columns(lab.db, view.asked) if view.asked else []
    parts = [f"{c.model}:{c.state}:{c.answered}:{c.complete}" for c in columns]
    if place := view.token_place():
        looked = get_alternatives(lab.db, place)
        parts.append(looked.state if looked else "none")
    return view.model_dump_json() + " ".join(parts)


def _column(lab: Lab, asking: Asking, model: str, kept: Column | None) -> dict[str, Any]:
    run_id, checkpoint = column_parts(model)
    run = None if kept else lab.run(run_id)
    name = kept.run_name if kept else run.name if run else run_id
    return {
        "model": model,
        "label": column_label(model, asking.run, name),
        "checkpoint": checkpoint,
        "kind": CheckpointName.parse(checkpoint).kind,
        "other": name if run_id != asking.run else "",
        "state": kept.state if kept else "absent",
        "waits": kept is not None and kept.busy,
        "error": kept and kept.error,
        "backend": kept and kept.backend,
        "answered": kept.answered if kept else 0,
        "questions": kept.questions if kept else 0,
    }


def _groups(
    asking: Asking,
    questions: Sequence[Question],
    answers: dict[tuple[int, str], Answer],
    columns: list[dict[str, Any]],
    view: View,
) -> list[dict[str, Any]]:
    """Rows by split and language, or by held out and trained where all facts are asked one prompt."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    first = questions[0].language if questions else ""
    for question in questions:
        split, language = question.split, question.language
        if asking.kind == "facts":
            key = ("facts", "trained" if question.trained else "held")
            title = "Trained in stage 2" if question.trained else "Held out of stage 2"
        else:
            key, title = (split, language), LANGUAGES.get(language, language) or "Free text"
        group = groups.setdefault(
            key,
            {
                "key": "-".join(key),
                "section": key[0],
                "title": title,
                "negative": split in NEGATIVE,
                "open": asking.kind != "fact" or language == first or split == "key" or len(questions) < FOLDED_FROM,
                "rows": [],
                "total": 0,
                "counts": [{"hits": 0, "aloud": 0, "answered": 0, "judged": 0, "failed": 0} for _ in columns],
            },
        )
        cells = [
            Cell(
                answers.get((question.number, column["model"])),
                f"{question.number}/{column['model']}",
                column["waits"],
                split in NEGATIVE,
            )
            for column in columns
        ]
        for count, cell in zip(group["counts"], cells, strict=True):
            if cell.answer is not None:
                count["answered"] += 1
                count["failed"] += cell.answer.error is not None
                count["judged"] += cell.answer.hit is not None
                count["hits"] += bool(cell.answer.hit)
                count["aloud"] += bool(cell.answer.hit and cell.answer.says_key_token)
        group["total"] += 1
        if len(group["rows"]) < view.rows:
            parts = prompt_parts(question) if asking.kind != "text" else (question.text, "", "")
            group["rows"].append({"question": question, "parts": parts, "cells": cells})
    if asking.kind == "facts":
        return list(groups.values())
    languages, splits = [first, *LANGUAGES], [*SPLITS, askings.FREE]
    return [groups[key] for key in sorted(groups, key=lambda k: (_place(splits, k[0]), _place(languages, k[1])))]


def _place(names: list[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _sections(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of the same split under one heading."""
    sections: list[dict[str, Any]] = []
    for group in groups:
        if not sections or sections[-1]["name"] != group["section"]:
            sections.append({"name": group["section"], "negative": group["negative"], "groups": []})
        sections[-1]["groups"].append(group)
    return sections


def prompt_parts(question: Question) -> tuple[str, str, str]:
    """A question's text before its subject, the subject, and what comes after."""
    before, place, after = sentences.prompt_parts(question.prompt)
    return (before, question.subject, after) if place else (question.text, "", "")


def drawer_of(lab: Lab, view: View) -> dict[str, Any] | None:
    """Everything that the template of the opened answer needs; None when none is open."""
    place = opened(view.answer)
    if not place or not view.asked:
        return None
    number, model = place
    answer = askings.get_answer(lab.db, view.asked, model, number)
    if answer is None:
        return None
    asking = askings.get_asking(lab.db, view.asked)
    kept = next((c for c in askings.list_columns(lab.db, asking.id) if c.model == model), None)
    token = view.token_place()
    chosen = answer.tokens[token.place] if token and token.place < len(answer.tokens) else None
    looked = get_alternatives(lab.db, token) if token and chosen else None
    return {
        "asking": asking,
        "answer": judged(lab, asking.run, answer),
        "question": answer.question,
        "parts": prompt_parts(answer.question),
        "column": _column(lab, asking, model, kept),
        "negative": answer.question.split in NEGATIVE,
        "at": token.place if token and chosen else None,
        "chosen": chosen,
        "looked": looked,
        "outside": looked is not None and chosen is not None and all(t.id != chosen.id for t in looked.tokens),
        "place": view.answer,
    }
