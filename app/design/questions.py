"""What an imported file does not say of itself: asked one thing after the other, with its first rows beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from app.shared.render import part
from app.shared.words import sentence
from engine.corpus.import_choices import NO_CHOICES, ROLES, ImportChoices, ImportQuestion
from engine.corpus.importing import ImportedFacts

LABELS = {
    "encoding": "Code page",
    "delimiter": "Between the columns stands",
    "header": "The row is",
    "columns": "Columns",
}
_CHOICES = TypeAdapter(ImportChoices)


@dataclass(frozen=True)
class Source:
    """Where the facts come from: `upload` or `paste`, the file's name, and whether they take the table's place."""

    kind: str
    name: str = ""
    replace: bool = False


def show_question(imported: ImportedFacts, source: Source) -> dict[str, Any]:
    """The panel with the first question that is open."""
    question = imported.asked[0]
    columns = question.kind == "columns"
    about = {**asdict(source), "choices": _text(imported.asked[0].options[0].choices) if columns else ""}
    answer: dict[str, Any] = {
        "question_panel": gr.update(visible=True),
        "question": part("design/question", file=source.name, sentence=sentence(question.sentence)),
        "question_preview": preview(imported),
        "question_about": json.dumps(about),
        "question_choice": _choice(question, imported.taken) if not columns else gr.update(visible=False, value=None),
        "question_columns": gr.update(visible=columns),
    }
    for role in ROLES:
        if columns:
            answer[f"question_{role}"] = _column(question, role, dict(imported.taken.columns or {}).get(role))
    return answer


def no_question() -> dict[str, Any]:
    """The panel, gone."""
    return {"question_panel": gr.update(visible=False), "question_about": "", "question_preview": ""}


def _choice(question: ImportQuestion, taken: ImportChoices) -> Any:
    options = [(f"{o.label}: {o.sample}" if o.sample else o.label, _text(o.choices)) for o in question.options]
    value = next((_text(o.choices) for o in question.options if o.value == question.guess), options[0][1])
    return gr.update(choices=options, value=value, visible=True, label=LABELS[question.kind])


def _column(question: ImportQuestion, role: str, place: int | None) -> Any:
    options = [(f"{o.label} ({o.sample})" if o.sample else o.label, o.value) for o in question.options]
    none = [] if role in ("subject", "object") else [("none", "")]
    return gr.update(choices=[*none, *options], value=str(place) if place else "")


def read_source(about: Any) -> Source:
    """What the page keeps of a question's file."""
    try:
        data = json.loads(about)
        return Source(str(data["kind"]), str(data["name"]), data["replace"] is True)
    except (ValueError, TypeError, KeyError):
        return Source("")


def read_choices(about: Any, choice: Any, *columns: Any) -> ImportChoices:
    """The answers so far; what the page never offered answers nothing."""
    try:
        base = json.loads(about)["choices"]
        if not base:
            return _CHOICES.validate_json(str(choice))
        places = {role: int(place) for role, place in zip(ROLES, columns, strict=True) if str(place or "").isdecimal()}
        return _CHOICES.validate_python({**json.loads(base), "columns": places})
    except (ValueError, TypeError, KeyError, ValidationError):
        return NO_CHOICES


def _text(choices: ImportChoices) -> str:
    return _CHOICES.dump_json(choices).decode()


def preview(imported: ImportedFacts) -> str:
    """The first rows of the file as they are read now, or why they cannot be."""
    taken = imported.taken
    first = (taken.first_row or 1) - 1
    roles = {place - 1: role for role, place in dict(taken.columns or {}).items()}
    rows = []
    for number, cells in enumerate(imported.preview):
        kind = "above" if number < first else "header" if number == first and taken.header else "fact"
        rows.append((number + 1, kind, cells))
    width = max((len(cells) for _, _, cells in rows), default=0)
    named = [roles.get(i, "") for i in range(width)]
    problems = () if imported.facts else tuple(p for p in imported.reading if p.severity == "error")
    return part("design/preview", rows=rows, named=named, problems=problems, count=len(imported.facts))
