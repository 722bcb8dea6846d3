"""A study as a table: two of its axes, and the value of each other one that is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.studies.view import (
    ASKED,
    ASKED_MEASURES,
    FACTS,
    MEASURES,
    REASONING_MEASURES,
    TOKENS,
    View,
    axis_name,
    value_name,
)
from engine.studies.compare import Comparison
from engine.studies.study import DEPTH, METHOD, SEED
from storage.measurements import TRAINING_TOKENS
from storage.runs import State
from storage.studies import ALL_FACTS, StoredStudy, StudyFigure, StudyRun

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
    """What is shown of a study. choosable: the axes that may be its rows; besides, its columns may be what is asked."""

    rows: Axis
    columns: Axis
    others: list[tuple[Axis, Value]]
    cells: dict[tuple[str, str], Cell]
    choosable: list[Axis]

    @property
    def columns_choosable(self) -> list[Axis]:
        """The axes that may be its columns."""
        return [*self.choosable, asked_axis([])]

    @property
    def chances(self) -> dict[str, float]:
        """What guessing would reach in choices: by column where those are what is asked, else of all, under ''."""
        found: dict[str, list[float]] = {}
        for (_, column), cell in self.cells.items():
            if cell.figure and cell.figure.chance is not None:
                found.setdefault(column if self.columns.path == ASKED else "", []).append(cell.figure.chance)
        return {name: sum(values) / len(values) for name, values in found.items()}

    def against(self, place: str) -> StudyFigure | None:
        """The figure at a row and a column, by `|`, with which the others are compared."""
        row, _, column = place.partition("|")
        return self.cells.get((row, column), Cell()).figure

    def cell(self, row: Value, column: Value) -> Cell:
        """The cell at two values."""
        return self.cells.get((value_name(row), value_name(column)), Cell())


def asked_axis(figures: list[StudyFigure]) -> Axis:
    """What is asked at the end of a method, and what it read for that, beside each other."""
    splits = {figure.split for figure in figures}
    reasoning = (heading for name, heading in REASONING_MEASURES.items() if MEASURES[name][2] in splits)
    return Axis(ASKED, (*ASKED_MEASURES.values(), *reasoning, TOKENS))


def axes_of(study: StoredStudy, runs: list[StudyRun], depths: list[int]) -> list[Axis]:
    """The axes but the seed's, those with several values first."""
    found = [
        Axis(path, tuple(dict.fromkeys(run.at[path] for run in runs if path in run.at)))
        for path in (METHOD, *study.plan["axes"])
        if path not in (SEED, DEPTH)
    ]
    planned = [int(value) for value in study.plan["axes"].get(DEPTH, ())]
    found.append(Axis(DEPTH, tuple(planned or sorted(filter(None, depths)) or [0])))
    return sorted((axis for axis in found if axis.values), key=lambda axis: len(axis.values) == 1)


def table_of(study: StoredStudy, runs: list[StudyRun], figures: list[StudyFigure], view: View) -> Table:
    """The table that the view wants, of figures of one measure, or of those beside each other."""
    axes = axes_of(study, runs, list({figure.depth for figure in figures}))
    by_path = {axis.path: axis for axis in axes}
    columns = asked_axis(figures) if asks_beside(study, view) else by_path.get(view.columns) or by_path[DEPTH]
    rows = by_path.get(view.rows) or by_path.get(METHOD) or by_path.get("stage2.facts") or axes[0]
    if rows is columns:
        rows = next((axis for axis in axes if axis is not columns), Axis("", ("",)))
    others = [
        (axis, axis.value(view.chosen.get(axis.path, ""))) for axis in axes if axis is not rows and axis is not columns
    ]
    cells: dict[tuple[str, str], Cell] = {}

    def places(at: dict[str, Value], depth: int = 0) -> Iterator[tuple[str, str]]:
        """Where a run or a figure belongs; what has no stage 1 is the same at every depth."""
        for each in [depth] if depth else by_path[DEPTH].values:
            here = {**at, DEPTH: each}
            if not any(here.get(axis.path, value) != value for axis, value in others):
                yield value_name(here.get(rows.path, "")), value_name(here.get(columns.path, ""))

    for run in runs:
        for what in columns.values if columns.path == ASKED else [""]:
            for spot in places({**run.at, ASKED: what}):
                cells.setdefault(spot, Cell()).states[run.state.value] += 1
    named = {**ASKED_MEASURES, **REASONING_MEASURES}
    headings = {MEASURES[name][2]: heading for name, heading in named.items()} | {TRAINING_TOKENS: TOKENS}
    for figure in figures:
        for spot in places({**figure.at, ASKED: headings.get(figure.split, "")}, figure.depth):
            cells.setdefault(spot, Cell()).figure = figure
    return Table(rows, columns, others, cells, [axis for axis in axes if len(axis.values) > 1])


def asks_beside(study: StoredStudy, view: View) -> bool:
    """Whether the columns are what is asked; of methods they are, unless something else is wanted."""
    return view.columns == ASKED or (not view.columns and bool(study.plan.get("methods")))


def waiting_words(cell: Cell) -> str:
    """Why a place of the table has no figure."""
    for state, words in (
        (State.RUNNING, "running"), (State.STOPPING, "stopping"), (State.QUEUED, "queued"), (State.FAILED, "failed"),
        (State.CANCELLED, "cancelled"), (State.DONE, "not asked"),
    ):  # fmt: skip
        if cell.states[state.value]:
            return words
    return "not planned"


def asked_of(study: StoredStudy, view: View, languages: list[str], language: str) -> dict[str, str]:
    """Whose figures the view wants: facts and language. language: the one that was trained in.

    Methods are compared on all facts: some have none held out.
    """
    usual = ALL_FACTS if study.plan.get("methods") else "held_out"
    return {
        "facts": view.facts if view.facts in FACTS else usual,
        "language": view.language if view.language in languages else language,
    }
