"""The editable table of facts: paste from a spreadsheet, a page of rows at a time, problems under their rows.

Gradio's own Dataframe takes no pasted rows and shows no problem beside a cell, so this is a `gr.HTML` with its own
script. Events: `rows` after an edit, `paste_rows` for a pasted table; both carry what `read_edit` understands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.shared.frame import html
from engine.checks import MAX_FACTS, Problem

SCRIPT = Path(__file__).with_suffix(".js")
MAX_ROWS = 2 * MAX_FACTS
_SHOWN_MARKS = 500


@dataclass(frozen=True)
class FactsEdit:
    """An edit of the table: its rows as they are now ([id or None, subject, object]) and what was done."""

    relation: str
    rows: list[list[Any]]
    removed: str = ""
    at: int = 0
    text: str = ""


def facts_table() -> gr.HTML:
    """The table, empty. Give it `table_value(...)` as its value and `table_marks(...)` as its property `marks`."""
    return html(
        {},
        html_template='<div class="facts-table"></div>',
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        elem_id="facts-table",
        marks={},
    )


def table_value(relation: str, rows: Sequence[Sequence[Any]], alternatives: dict[str, list[str]]) -> dict[str, Any]:
    """The table's value: rows are [id, subject, object]; `alternatives` by the id as text."""
    shown = [[i, subject, object_, len(alternatives.get(str(i), ()))] for i, subject, object_ in rows]
    return {"relation": relation, "rows": shown}


def table_marks(problems: Sequence[Problem]) -> dict[str, list[list[str]]]:
    """The table's marks: the problems that are about a row, by its place counted from 0."""
    marks: dict[str, list[list[str]]] = {}
    for problem in problems:
        if problem.row is not None:
            marks.setdefault(str(problem.row - 1), []).append(
                [problem.column or "subject", problem.severity, problem.message]
            )
        if len(marks) >= _SHOWN_MARKS:
            break
    return marks


def read_edit(event: gr.EventData) -> FactsEdit | None:
    """The edit of a `rows` or `paste_rows` event; None when it is not what the table's script sends."""
    data = event._data
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        return None
    rows = []
    for row in data["rows"][:MAX_ROWS]:
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], int | None):
            return None
        rows.append([row[0], str(row[1]), str(row[2])])
    at = data.get("at")
    return FactsEdit(
        relation=str(data.get("relation", "")),
        rows=rows,
        removed=str(data.get("removed", ""))[:40],
        at=at if isinstance(at, int) else 0,
        text=str(data.get("text", "")),
    )
