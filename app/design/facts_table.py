"""The editable table of facts: paste from a spreadsheet, a page of rows at a time, problems under their rows.

Gradio's own Dataframe takes no pasted rows and shows no problem beside a cell, so this is a `gr.HTML` with its own
script. Events: `rows` after an edit, `paste_rows` for a pasted table; both carry what `read_edit` understands: not
all rows but what was changed in them, each known by its number, so that two tabs lose no row to each other.
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
_MOST = 2**53  # beyond it a browser's numbers are no whole ones
_MOST_CHARACTERS = 2_000  # of a cell; the checks say long before what is too long


@dataclass(frozen=True)
class Step:
    """One edit: the `number` that the tab counts, cells that were changed or rows that were added
    ([row, the row above or None, subject or None, object or None]; None: not touched), and rows that were removed."""

    number: int
    cells: tuple[tuple[int, int | None, str | None, str | None], ...] = ()
    removed: tuple[int, ...] = ()


@dataclass(frozen=True)
class FactsEdit:
    """The edits of the table that the lab did not confirm yet, and what was done last.

    `words`: what was removed. `above`: the row below which `text` was pasted; None: at the top.
    """

    relation: str
    steps: tuple[Step, ...] = ()
    words: str = ""
    above: int | None = None
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


def table_marks(problems: Sequence[Problem], rows: Sequence[Sequence[Any]], taken: int) -> dict[str, Any]:
    """The table's marks: the problems that are about a row, by the row's number, and the last edit that was taken."""
    marks: dict[str, list[list[str]]] = {}
    for problem in problems:
        if problem.row is not None and problem.row <= len(rows):
            marks.setdefault(str(rows[problem.row - 1][0]), []).append(
                [problem.column or "subject", problem.severity, problem.message]
            )
        if len(marks) >= _SHOWN_MARKS:
            break
    return {"taken": taken, "rows": marks}


def read_edit(event: gr.EventData) -> FactsEdit | None:
    """The edit of a `rows` or `paste_rows` event; None when it is not what the table's script sends."""
    data = event._data
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
        return None
    try:
        steps = tuple(_step(step) for step in data["steps"])
    except (TypeError, ValueError, KeyError):
        return None
    above = data.get("above")
    return FactsEdit(
        relation=str(data.get("relation", "")),
        steps=steps,
        words=str(data.get("words", ""))[:40],
        above=above if isinstance(above, int) else None,
        text=str(data.get("text", "")),
    )


def _step(data: Any) -> Step:
    cells = [
        (_number(row), None if above is None else _number(above), _text(subject), _text(object_))
        for row, above, subject, object_ in data["cells"][:MAX_ROWS]
    ]
    return Step(_number(data["number"]), tuple(cells), tuple(_number(row) for row in data["removed"]))


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST:
        raise ValueError("not the number of a row")
    return value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:_MOST_CHARACTERS]
