"""A study or an attack as a view shows it: its runs, the figures of the measure, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass

from app.studies.grids import Grid
from app.studies.table import Table, table_of
from app.studies.view import View
from storage.studies import StudyFigure, StudyRun


@dataclass(frozen=True)
class Shown:
    """What is shown. languages: in which anything was asked; asked: which figures they are (`Grid.asked_of`)."""

    grid: Grid
    runs: list[StudyRun]
    languages: list[str]
    asked: dict[str, str]
    figures: list[StudyFigure]
    table: Table


def shown_of(grid: Grid, view: View) -> Shown:
    """What the view shows of a grid, as it is now."""
    runs = grid.runs()
    languages, trained = grid.languages()
    asked = grid.asked_of(view, languages, trained)
    beside = grid.beside() if grid.asks_beside(view) else {}
    headings = {grid.split_of(measure)[2]: heading for measure, heading in beside.items()} or None
    figures = grid.figures(list(beside) or [grid.measure_of(view)], **asked)
    table = table_of(grid.axes(runs, figures), runs, figures, view, usual=grid.usual, headings=headings)
    return Shown(grid, runs, languages, asked, figures, table)
