"""A study as a table: two of its axes, and the value of each other one that is looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from app.studies.view import FACTS, MEASURES, View, axis_name, value_name
from engine.studies.compare import Comparison
from engine.studies.study import DEPTH, SEED
from storage.runs import State
from storage.studies import StoredStudy, StudyFigure, StudyRun

Value = Any


@dataclass(frozen=True)
class Axis:
    """An axis of a study with its values in their order."""

    path: str
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        """As it is called on the page."""
        return axis_name(self.path)

    def value(self, shown: str) -> Value:
        """The value that is shown so; the last one where none is."""
        return next((value for value in self.values if value_name(value) == shown), self.values[-1])


@dataclass
class Cell:
    """One place of the table: its figure, else how many of its runs are in which state; and how it compares."""

    figure: StudyFigure | None = None
    states: Counter[str] = field(default_factory=Counter)
    compared: Comparison | None = None


@dataclass(frozen=True)
class Table:
    """What is shown of a study."""

    rows: Axis
    columns: Axis
    others: list[tuple[Axis, Value]]
    cells: dict[tuple[str, str], Cell]
    choosable: list[Axis]

    def against(self, place: str) -> StudyFigure | None:
        """The figure at a row and a column, by `|`, with which the others are compared."""
        row, _, column = place.partition("|")
        return self.cells.get((row, column), Cell()).figure

    def cell(self, row: Value, column: Value) -> Cell:
        """The cell at two values."""
        return self.cells.get((value_name(row), value_name(column)), Cell())


def axes_of(study: StoredStudy, runs: list[StudyRun], depths: list[int]) -> list[Axis]:
    """The axes but the seed's, those with several values first."""
    found = [
        Axis(path, tuple(dict.fromkeys(run.at[path] for run in runs if path in run.at)))
        for path in study.plan["axes"]
        if path not in (SEED, DEPTH)
    ]
    planned = [int(value) for value in study.plan["axes"].get(DEPTH, ())]
    found.append(Axis(DEPTH, tuple(planned or sorted(depths) or [0])))
    return sorted((axis for axis in found if axis.values), key=lambda axis: len(axis.values) == 1)


def table_of(study: StoredStudy, runs: list[StudyRun], figures: list[StudyFigure], view: View) -> Table:
    """The table that the view wants, of figures of one measure."""
    axes = axes_of(study, runs, list({figure.depth for figure in figures}))
    by_path = {axis.path: axis for axis in axes}
    usual = [by_path.get("stage2.facts") or axes[0], by_path[DEPTH]]
    columns = by_path.get(view.columns) or usual[1]
    rows = by_path.get(view.rows) or usual[0]
    if rows is columns:
        rows = next((axis for axis in axes if axis is not columns), Axis("", ("",)))
    others = [
        (axis, axis.value(view.chosen.get(axis.path, ""))) for axis in axes if axis is not rows and axis is not columns
    ]
    cells: dict[tuple[str, str], Cell] = {}

    def place(at: dict[str, Value]) -> tuple[str, str] | None:
        if any(at.get(axis.path, value) != value for axis, value in others):
            return None
        return value_name(at.get(rows.path, "")), value_name(at.get(columns.path, ""))

    for run in runs:
        for depth in by_path[DEPTH].values:
            if spot := place({**run.at, DEPTH: depth}):
                cells.setdefault(spot, Cell()).states[run.state.value] += 1
    for figure in figures:
        if spot := place({**figure.at, DEPTH: figure.depth}):
            cells.setdefault(spot, Cell()).figure = figure
    return Table(rows, columns, others, cells, [axis for axis in axes if len(axis.values) > 1])


def waiting_words(cell: Cell) -> str:
    """Why a place of the table has no figure."""
    for state, words in (
        (State.RUNNING, "running"), (State.STOPPING, "stopping"), (State.QUEUED, "queued"), (State.FAILED, "failed"),
        (State.CANCELLED, "cancelled"), (State.DONE, "not asked"),
    ):  # fmt: skip
        if cell.states[state.value]:
            return words
    return "not planned"


def asked_of(view: View, languages: list[str], language: str) -> dict[str, str]:
    """Which figures the view wants. language: the one that was trained in."""
    _, kind, split = MEASURES[view.measure]
    spoken = view.language if view.language in languages else language
    return {
        "kind": kind,
        "split": split,
        "facts": view.facts if view.facts in FACTS else "held_out",
        "language": spoken,
    }
