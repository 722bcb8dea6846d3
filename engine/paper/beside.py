"""The paper's figures beside ours: for each row and column of a table the figure of a study that is the same thing.

found = Ours(figures)
found.figure(table, row, "test")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from engine.paper.tables import Row, Table, place_of


class Figure(Protocol):
    """What is read of a study's figure; `storage.studies.StudyFigure` is one."""

    @property
    def value(self) -> float:
        """The figure."""

    @property
    def low(self) -> float:
        """Where its 95 % interval begins."""

    @property
    def high(self) -> float:
        """Where its 95 % interval ends."""

    @property
    def seeds(self) -> dict[int, dict[str, Any]]:
        """Each seed's own `value`."""


class Ours:
    """The figures of one study on one model."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self._places = [(place_of(figure), figure) for figure in figures]
        self._asked: dict[tuple[tuple[str, str], ...], list[tuple[dict[str, str], Figure]]] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    @property
    def fewest_seeds(self) -> int:
        """How many seeds the figure has that has the fewest."""
        return min((len(figure.seeds) for _, figure in self._places), default=0)

    def figure(self, table: Table, row: Row, column: str, but: Mapping[str, str] | None = None) -> Figure | None:
        """The figure of a row and column, `but` for what is otherwise; None where there is none, or several that differ
        in an axis that the table has not."""
        if row.where is None:
            return None
        where = table.where | table.columns[column].where | dict(but or {})
        its = self._where(row)
        among = self._among({path: value for path, value in where.items() if path not in its})
        found = [figure for place, figure in among if its.items() <= place.items()]
        return found[0] if len(found) == 1 else None

    def _where(self, row: Row) -> dict[str, str]:
        """Where a row is: `otherwise`, where the study has that and not the other."""
        first, second = row.where or {}, row.otherwise or {}
        return second if second and not self._among(first) and self._among(second) else first

    def _among(self, where: dict[str, str]) -> list[tuple[dict[str, str], Figure]]:
        """The figures that are there: looked through once, not for each row."""
        key = tuple(sorted(where.items()))
        if key not in self._asked:
            self._asked[key] = [(place, figure) for place, figure in self._places if where.items() <= place.items()]
        return self._asked[key]

    def further_rows(self, table: Table) -> list[Row]:
        """The rows that the study has and the paper has not, in the study's order."""
        axes = table.axes
        if not axes:
            return []
        known = [table.where | self._where(row) for row in table.rows.values()]
        found: list[dict[str, str]] = []
        for more in table.further:
            for column in table.columns.values():
                for place, _ in self._among(table.where | column.where | more):
                    at = {path: place[path] for path in axes if path in place} | more
                    if at.keys() >= set(axes) and table.where | at not in known and at not in found:
                        found.append(at)
        return [Row(where=at) for at in sorted(found, key=lambda at: [_natural(at[p]) for p in (*axes[1:], axes[0])])]


def _natural(value: str) -> tuple[float, str]:
    """Numbers by their size, before words."""
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value
