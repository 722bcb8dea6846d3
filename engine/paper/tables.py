"""The paper's tables as data: what it published, and which figures of a study of ours say the same thing here."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.fields import Frozen
from engine.plain_yaml import read_yaml
from engine.studies.study import DEPTH

FILE = Path(__file__).with_name("published.yaml")
Line = Annotated[str, Field(max_length=500)]
# What of a figure is the same thing: axes and fields, with their values as written.
Where = Annotated[dict[Line, Line], Field(max_length=20)]
EMPTY: Any = Field(default_factory=dict)
ABOUT = ("kind", "facts", "split", "language")


def _as_value(given: Any) -> Any:
    return given if isinstance(given, dict) else {"value": given}


class Published(Frozen):
    """One published value. about: the paper says it is rounded; words: what it says beside a value, or in its place."""

    value: float | None = None
    about: bool = False
    words: Line = ""


class Source(Frozen):
    """Where the published numbers are from."""

    title: Line
    venue: Line
    arxiv: Line
    code: Line


class Column(Frozen):
    """Something that is measured.

    measure, digits: as the table's, where they are others. counted: what `n` of its figures counts.
    """

    title: Line
    where: Where = EMPTY
    measure: Line = ""
    digits: int | None = None
    counted: Literal["answers", "runs", "prompts"] = "answers"


class Row(Frozen):
    """Where it was measured, and what was published there, by column. x, series: its place in the chart.

    otherwise: where studies have it that have nothing there, since they measure something less.
    """

    where: Where | None = None
    otherwise: Where | None = None
    x: Line = ""
    series: Line = ""
    published: dict[Line, Annotated[Published, BeforeValidator(_as_value)]] = EMPTY


class Claim(Frozen):
    """Something that the paper says, to be held against figures by a `rule` (`engine.paper.claims`).

    first, then; at; order: the names of the rows that it is about. floor: what of `at` is otherwise in the figure that
    a level has to be above, called `floor_words`. ceiling: what `near 0` allows.
    """

    rule: Literal["change", "steady", "level", "ceiling", "order"]
    words: Line
    column: Line
    first: Line = ""
    then: Line = ""
    at: Line = ""
    order: tuple[Line, ...] = ()
    floor: Where | None = None
    floor_words: Line = ""
    ceiling: float = 0.0

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it is about."""
        return tuple(filter(None, (self.first, self.then, self.at, *self.order)))


class Table(Frozen):
    """A table or figure of the paper.

    study: the shipped study that measures it here; others: further ones, of other models. chart: the column that is
    drawn first. digits: behind the point. near: how far two figures may lie apart and be called the same.
    lines: whether the chart joins what is of one `series`. further: what, of a figure, a row of ours alone
    has. link: a page of ours instead.
    """

    title: Line
    about: Annotated[str, Field(max_length=2000)]
    model: Line = ""
    unpublished: tuple[Line, ...] = ()
    study: Line = ""
    others: tuple[Line, ...] = ()
    measure: Line = ""
    digits: int = 2
    near: float = 0.1
    lines: bool = False
    x_title: Line = ""
    x: Line = ""
    series: Line = ""
    where: Where = EMPTY
    further: Annotated[tuple[Where, ...], Field(max_length=20)] = ({},)
    columns: dict[Line, Column] = EMPTY
    chart: Line = ""
    rows: Annotated[dict[Line, Row], Field(max_length=200)] = EMPTY
    claims: Annotated[tuple[Claim, ...], Field(max_length=50)] = ()
    link: Line = ""
    link_words: Line = ""

    @model_validator(mode="after")
    def _check(self) -> Table:
        columns = {name for row in self.rows.values() for name in row.published} | {c.column for c in self.claims}
        if unknown := sorted((columns | ({self.chart} - {""})) - self.columns.keys()):
            raise ValueError(f"there is no column {', '.join(unknown)}")
        if unknown := sorted({name for claim in self.claims for name in claim.rows} - self.rows.keys()):
            raise ValueError(f"there is no row {', '.join(unknown)}")
        return self

    @property
    def studies(self) -> tuple[str, ...]:
        """The shipped studies that measure it."""
        return tuple(filter(None, (self.study, *self.others)))

    def x_of(self, row: Row) -> str:
        """Where a row stands across the chart."""
        return row.x or _filled(self.x, row)

    def series_of(self, row: Row) -> str:
        """To which line of the chart a row belongs."""
        return row.series or _filled(self.series, row)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the rows differ in."""
        paths = dict.fromkeys(path for row in self.rows.values() for path in row.where or ())
        return tuple(path for path in paths if path not in ABOUT or paths.keys() <= set(ABOUT))

    def digits_of(self, column: str) -> int:
        """How many digits a column's figures have behind the point."""
        own = self.columns[column].digits
        return self.digits if own is None else own


def _filled(template: str, row: Row) -> str:
    return re.sub(r"\{([^}]+)\}", lambda found: (row.where or {}).get(found[1], "?"), template)


class Paper(Frozen):
    """The paper: where its numbers are from, and its tables by their short names."""

    source: Source
    tables: dict[Line, Table]


@cache
def load_paper() -> Paper:
    """What the paper published, of published.yaml."""
    return Paper.model_validate(read_yaml(FILE.read_text(encoding="utf-8")))


def place_of(figure: Any) -> dict[str, str]:
    """Where a figure of a study stands, as `where` writes it: its axes, its depth, and what was asked."""
    at = {path: f"{value:g}" if isinstance(value, float) else str(value) for path, value in figure.at.items()}
    return {**at, DEPTH: str(figure.depth), **{name: str(getattr(figure, name)) for name in ABOUT}}
