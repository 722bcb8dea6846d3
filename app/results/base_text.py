"""What the base knew: how much of its own text each checkpoint still says, as a small table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.results.figures import Figures
from app.shared.render import render
from app.shared.words import BASE_TEXT_METRICS
from storage.measurements import Result

BASE_TEXT_LOSS = "base_text_loss"


@dataclass(frozen=True)
class Line:
    """A measure in a language: a cell for each checkpoint, None where it was not compared."""

    metric: str
    language: str
    cells: list[Result | None]


def base_text_html(figures: Figures) -> str:
    """The table; empty for a run whose experiment asks for none (`evaluation.base_text`)."""
    known = {
        (r.metric, r.language, r.checkpoint): r for r in map(_shown, figures.rows) if r.metric in BASE_TEXT_METRICS
    }
    lines = [
        Line(metric, language, [known.get((metric, language, c)) for c in figures.checkpoints])
        for metric in BASE_TEXT_METRICS
        for language in figures.languages
    ]
    lines = [line for line in lines if any(line.cells)]
    return render("results/base_text.html", lines=lines, checkpoints=figures.checkpoints)


def _shown(row: Result) -> Result:
    """A loss in nats is shown as the perplexity that it stands for."""
    if row.metric != BASE_TEXT_LOSS:
        return row
    return Result(**(vars(row) | {name: _exp(getattr(row, name)) for name in ("value", "low", "high")}))


def _exp(loss: float) -> float:
    """e to this power; infinite where that is more than a number can be, as of a model that training broke."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
