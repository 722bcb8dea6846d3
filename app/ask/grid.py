"""The grid of the Query page: prompts (or facts) down, models across, as plain data for its template."""

from __future__ import annotations

import math
from typing import Any

from app.ask.plan import FREE
from app.ask.view import View, column_label, column_parts, opened, shown_columns
from app.shared.lab import Lab
from app.shared.words import LANGUAGES, SPLITS
from engine.evaluation.questions import PLACEHOLDER
from storage import asked
from storage.asked_queue import get_alternatives
from storage.checkpoints import CheckpointName

# In these the object is a wrong answer: a hit is nothing to be glad of.
NEGATIVE = ("unrelated", "decoy")
FOLDED_FROM = 30


def grid_of(lab: Lab, view: View) -> dict[str, Any] | None:
    """Everything that the template of the grid needs; None when there is no such asking."""
    try:
        asking = asked.get_asking(lab.db, view.asked)
    except KeyError:
        return None
    kept = {c.model: c for c in asked.list_columns(lab.db, asking.id)}
    models = shown_columns(view, list(kept.values()))
    questions = asked.list_questions(lab.db, asking.id)
    answers = {(a["number"], a["model"]): a for a in asked.list_answers(lab.db, asking.id, models)}
    columns = [_column(lab, asking, model, kept.get(model)) for model in models]
    groups = _groups(asking, questions, answers, columns, view)
    shown = [kept[m] for m in models if m in kept]
    fact = next((q for q in questions if q["object"]), None)
    return {
        "asking": asking,
        "view": view,
        "columns": columns,
        "groups": groups,
        "sections": _sections(groups),
        "asked": sum(c.questions for c in shown),
        "answered": sum(c.answered for c in shown),
        "busy": any(c.state in (asked.WAITING, asked.ASKING) for c in shown),
        "judged": fact,
        "settings": asking.settings,
        "here": opened(view.answer),
    }


def signature(lab: Lab, view: View) -> str:
    """Changes whenever the grid or the opened answer would be drawn differently; cheap."""
    columns = asked.list_columns(lab.db, view.asked) if view.asked else []
    parts = [f"{c.model}:{c.state}:{c.answered}:{c.complete}" for c in columns]
    if (place := opened(view.answer)) and view.token is not None:
        found = get_alternatives(lab.db, view.asked, place[1], place[0], view.token)
        parts.append(found["state"] if found else "none")
    return view.model_dump_json() + " ".join(parts)


def _column(lab: Lab, asking: asked.Asking, model: str, kept: asked.Column | None) -> dict[str, Any]:
    run, checkpoint = column_parts(model)
    name = kept.run_name if kept else (found.name if (found := lab.run(run)) else run)
    return {
        "model": model,
        "run": run,
        "label": column_label(model, asking.run, name),
        "checkpoint": checkpoint,
        "kind": CheckpointName.parse(checkpoint).kind,
        "other": name if run != asking.run else "",
        "state": kept.state if kept else "absent",
        "error": kept.error if kept else None,
        "backend": kept.backend if kept else None,
        "answered": kept.answered if kept else 0,
        "questions": kept.questions if kept else 0,
    }


def _groups(
    asking: asked.Asking,
    questions: list[dict[str, Any]],
    answers: dict[tuple[int, str], dict[str, Any]],
    columns: list[dict[str, Any]],
    view: View,
) -> list[dict[str, Any]]:
    """Rows by split and language, or by held out and trained where all facts are asked one prompt."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    first = questions[0]["language"] if questions else ""
    for question in questions:
        split, language = question["split"], question["language"]
        if asking.kind == "facts":
            key, title = ("facts", "trained" if question["trained"] else "held"), _kept(question)
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
                "counts": [{"hits": 0, "answered": 0, "judged": 0, "failed": 0} for _ in columns],
            },
        )
        cells = [answers.get((question["number"], c["model"])) for c in columns]
        for count, cell in zip(group["counts"], cells, strict=True):
            if cell is not None:
                count["answered"] += 1
                count["failed"] += cell["error"] is not None
                count["judged"] += cell["hit"] is not None
                count["hits"] += cell["hit"] or 0
        group["total"] += 1
        if len(group["rows"]) < view.rows:
            shown = [_cell(question, column, cell) for column, cell in zip(columns, cells, strict=True)]
            group["rows"].append(_row(asking, question) | {"cells": shown})
    languages, splits = [first, *LANGUAGES], [*SPLITS, FREE]
    if asking.kind == "facts":
        return list(groups.values())
    return [groups[key] for key in sorted(groups, key=lambda k: (_place(splits, k[0]), _place(languages, k[1])))]


def _kept(question: dict[str, Any]) -> str:
    return "Trained in stage 2" if question["trained"] else "Held out of stage 2"


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


def _row(asking: asked.Asking, question: dict[str, Any]) -> dict[str, Any]:
    before, mark, after = question["prompt"].partition(PLACEHOLDER)
    named = asking.kind != "text" and bool(mark)
    return {
        "number": question["number"],
        "before": before if named else question["text"],
        "subject": question["subject"] if named else "",
        "after": after if named else "",
        "object": question["object"],
        "about": question["about"],
    }


def _cell(question: dict[str, Any], column: dict[str, Any], answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        pending = column["state"] in (asked.WAITING, asked.ASKING)
        return {"state": "pending" if pending else "none"}
    place = f"{question['number']}/{column['model']}"
    if answer["error"]:
        return {"state": "error", "place": place, "error": answer["error"]}
    return {
        "state": "answered",
        "place": place,
        "answer": answer["answer"],
        "hit": answer["hit"],
        "probability": probability(answer["log_probability"]),
        "rank": answer["rank"],
        "options": answer["options"],
        "ranking": not answer["complete"],
        "negative": question["split"] in NEGATIVE,
    }


def probability(log_probability: float | None) -> float | None:
    """A stored natural logarithm as a probability."""
    return None if log_probability is None else math.exp(min(0.0, log_probability))


def drawer_of(lab: Lab, view: View) -> dict[str, Any] | None:
    """Everything that the template of the opened answer needs; None when none is open."""
    place = opened(view.answer)
    if not place or not view.asked:
        return None
    number, model = place
    row = asked.get_answer(lab.db, view.asked, model, number)
    if row is None:
        return None
    asking = asked.get_asking(lab.db, view.asked)
    kept = next((c for c in asked.list_columns(lab.db, asking.id) if c.model == model), None)
    tokens = [t | {"probability": probability(t["log_probability"])} for t in row["tokens"]]
    token = view.token if view.token is not None and view.token < len(tokens) else None
    looked = get_alternatives(lab.db, asking.id, model, number, token) if token is not None else None
    found = looked["alternatives"] if looked else []
    chosen = tokens[token]["id"] if token is not None else None
    before, mark, after = row["prompt"].partition(PLACEHOLDER)
    return {
        "asking": asking,
        "row": row
        | {
            "before": before if mark else row["text"],
            "subject": row["subject"] if mark else "",
            "after": after if mark else "",
            "probability": probability(row["log_probability"]),
        },
        "column": _column(lab, asking, model, kept),
        "negative": row["split"] in NEGATIVE,
        "tokens": tokens,
        "token": token,
        "looked": looked,
        "alternatives": [
            a | {"probability": probability(a["log_probability"]), "chosen": a["id"] == chosen} for a in found
        ],
        "outside": tokens[token] if looked and token is not None and all(a["id"] != chosen for a in found) else None,
        "place": view.answer,
        "settings": asking.settings,
    }
