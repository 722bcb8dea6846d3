"""A study or an attack as a table: two of its axes, and the value of each other one that is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from app.studies.view import ASKED, View, axis_name, value_name
from engine.execution.studies.kept import BASE_TEXT
from engine.studies.compare import Comparison
from engine.studies.study import DEPTH
from storage.runs import State
from storage.studies import StudyFigure, StudyRun

Value = Any


@dataclass(frozen=True)
class Axis:
    """An axis of a study with its values in their order."""

    path: str
    values: tuple[Value, ...]
    everywhere: bool = False  # what has no value of it belongs to each
    usual: int = -1  # which value is looked at where none is chosen

    @property
    def name(self) -> str:
        """As it is called on the page."""
        return axis_name(self.path)

    def value(self, shown: str) -> Value:
        """The value that is shown so; the usual one where none is."""
        return next((value for value in self.values if value_name(value) == shown), self.values[self.usual])


@dataclass
class Cell:
    """One place of the table: its figure, the runs that it is of, and how it compares."""

    figure: StudyFigure | None = None
    runs: list[StudyRun] = field(default_factory=list)
    compared: Comparison | None = None


@dataclass(frozen=True)
class Table:
    """What is shown of a study. choosable: the axes that may be its rows; besides, its columns may be what is asked."""

    rows: Axis
    columns: Axis
    others: list[tuple[Axis, Value]]
    cells: dict[tuple[str, str], Cell]
    choosable: list[Axis]

    @property
    def columns_choosable(self) -> list[Axis]:
        """The axes that may be its columns."""
        return [*self.choosable, Axis(ASKED, ())]

    @property
    def chances(self) -> dict[str, float]:
        """What guessing would reach in choices: by column where those are what is asked, else of all, under ''."""
        found: dict[str, list[float]] = {}
        for (_, column), cell in self.cells.items():
            if cell.figure and cell.figure.chance is not None:
                found.setdefault(column if self.columns.path == ASKED else "", []).append(cell.figure.chance)
        return {name: sum(values) / len(values) for name, values in found.items()}

    @property
    def counts_tokens(self) -> bool:
        """Whether its figures are shares of tokens, not of answers."""
        return any(cell.figure and cell.figure.split == BASE_TEXT for cell in self.cells.values())

    def against(self, place: str) -> StudyFigure | None:
        """The figure at a row and a column, by `|`, with which the others are compared."""
        return self.cells.get(self.place(place), Cell()).figure

    def place(self, joined: str) -> tuple[str, str]:
        """The row and the column that are joined by `|`, which either may hold itself; else empty ones."""
        return next((place for place in self.cells if "|".join(place) == joined), ("", ""))

    def cell(self, row: Value, column: Value) -> Cell:
        """The cell at two values."""
        return self.cells.get((value_name(row), value_name(column)), Cell())


def table_of(
    axes: list[Axis], runs: list[StudyRun], figures: list[StudyFigure], view: View, *, usual: tuple[str, ...],
    headings: dict[str, str] | None = None,
) -> Table:  # fmt: skip
    """The table that the view wants of runs and figures on some axes.

    usual: paths of axes, of which the first that is there is the columns, the next one the rows, where the view says
    nothing. headings: what the figures of each split are called, where the columns are what is asked.
    """
    by_path = {axis.path: axis for axis in axes}
    if headings is not None:
        columns = Axis(ASKED, tuple(dict.fromkeys(headings.values())))
    else:
        columns = by_path.get(view.columns) or next(by_path[path] for path in usual if path in by_path)
    wanted = (by_path[path] for path in (view.rows, *usual[1:], *by_path) if path in by_path)
    rows = next(wanted, columns)
    if rows is columns:
        rows = next((axis for axis in axes if axis is not columns), Axis("", ("",)))
    others = [
        (axis, axis.value(view.chosen.get(axis.path, ""))) for axis in axes if axis is not rows and axis is not columns
    ]
    cells: dict[tuple[str, str], Cell] = {}

    def places(at: dict[str, Value]) -> Iterator[tuple[str, str]]:
        """Where a run or a figure belongs."""
        if any(at.get(axis.path, value) != value for axis, value in others):
            return
        for row, column in product(*(_own(axis, at) for axis in (rows, columns))):
            yield value_name(row), value_name(column)

    for run in runs:
        for what in columns.values if columns.path == ASKED else [""]:
            for spot in places({**run.at, ASKED: what}):
                cells.setdefault(spot, Cell()).runs.append(run)
    for figure in figures:
        at = {**figure.at, ASKED: (headings or {}).get(figure.split, "")}
        for spot in places(at | {DEPTH: figure.depth} if figure.depth else at):
            cells.setdefault(spot, Cell()).figure = figure
    return Table(rows, columns, others, cells, [axis for axis in axes if len(axis.values) > 1])


def _own(axis: Axis, at: dict[str, Value]) -> tuple[Value, ...]:
    """The values of an axis at which something is."""
    return axis.values if axis.everywhere and axis.path not in at else (at.get(axis.path, ""),)


def waiting_for(cell: Cell) -> StudyRun | None:
    """The run that a place without a figure waits for, or that says why it has none."""
    states = (State.RUNNING, State.STOPPING, State.QUEUED, State.FAILED, State.CANCELLED, State.DONE)
    return min(cell.runs, key=lambda run: states.index(run.state), default=None)


def waiting_words(cell: Cell) -> str:
    """Why a place of the table has no figure."""
    run = waiting_for(cell)
    if run is None:
        return "not planned"
    return "not asked" if run.state is State.DONE else run.state.value
