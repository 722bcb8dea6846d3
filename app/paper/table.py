"""A table of the paper as it is shown: its rows with published values and ours, and how its claims stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.paper.beside import Ours
from engine.paper.claims import Judged, judge, published_words
from engine.paper.tables import Published, Row, Table

NOTHING = Published()


@dataclass(frozen=True)
class Cell:
    """One place: what was published, and our figure (`storage.studies.StudyFigure`)."""

    published: Published
    ours: Any


@dataclass(frozen=True)
class Line:
    """A row: where it stands, its cells by column; further: the paper has not got it."""

    x: str
    series: str
    cells: dict[str, Cell]
    further: bool


@dataclass(frozen=True)
class Beside:
    """A table of the paper beside a study of ours."""

    table: Table
    lines: list[Line]
    further: list[Line]
    judged: list[Judged]

    @property
    def measured(self) -> bool:
        """Whether anything of ours is in it."""
        return any(cell.ours for line in (*self.lines, *self.further) for cell in line.cells.values())

    def said(self, cell: Cell, column: str) -> str:
        """The published value of a column in words, '' where there is none."""
        return "" if cell.published == NOTHING else published_words(cell.published, self.table.digits_of(column))


def beside(table: Table, ours: Ours) -> Beside:
    """The table with the figures of a study in their places."""

    def line(row: Row, further: bool) -> Line:
        cells = {
            name: Cell(row.published.get(name, NOTHING), ours.figure(table, row, name) if ours else None)
            for name in table.columns
        }
        return Line(table.x_of(row), table.series_of(row), cells, further)

    lines = [line(row, False) for row in table.rows.values()]
    further = [line(row, True) for row in ours.further_rows(table)] if ours else []
    return Beside(table, lines, further, [judge(table, claim, ours) for claim in table.claims])


def by_series(lines: list[Line]) -> dict[str, list[Line]]:
    """Lines by what they belong to, in their order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.series, []).append(line)
    return found
