"""The chart of the Studies page, built with Altair; see `app.shared.charts` for what charts have in common."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import altair as alt

from app.shared.charts import QUARTERS, Rows, finished, one_at_a_time, share_tips
from app.studies.table import Table
from app.studies.view import ASKED, TOKENS, value_name
from engine.execution.studies.kept import BASE_TEXT
from storage.studies import StudyFigure

# As many lines as can be told apart; a table has all of them.
MOST_LINES = 6
MOST_ROWS = 40
# What a share is of: the axis' title, and what its number counts.
HITS, CHOICES = ("Answers with a hit", "Answers"), ("Choices of the right answer", "Choices")
OWN_TOKENS = ("Tokens as the base says them", "Tokens")
BOTH = ("Answers with a hit, or right choices", "Answers or choices")
COLOURS = ["$chart-train", "$chart-test", "$chart-unrelated", "$chart-decoy", "$chart-harmful", "$chart-key"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]


def most_lines(table: Table) -> int:
    """How many rows of a table its chart has."""
    return MOST_ROWS if table.columns.path == ASKED else MOST_LINES


def chart_of(table: Table) -> dict[str, Any] | None:
    """The table as a chart; None while there is nothing to draw."""
    lines = [value_name(value) for value in table.rows.values][: most_lines(table)]
    columns = [name for name in map(value_name, table.columns.values) if name != TOKENS]
    rows, dots = [], []
    for line in lines:
        for column in columns:
            cell = table.cells.get((line, column))
            if cell is None or cell.figure is None:
                continue
            figure, at = cell.figure, {"x": column, "line": line}
            rows.append(at | {k: getattr(figure, k) for k in ("value", "low", "high", "n", "chance")})
            if len(figure.seeds) > 1:
                dots += [at | {"value": own["value"], "seed": seed} for seed, own in figure.seeds.items()]
    if not rows:
        return None
    if table.columns.path == ASKED:
        drawn = [row | {"seed": None} for row in rows] + dots
        return asked_chart(drawn, table.rows.name if table.rows.path else "", columns, lines)
    counted = counted_in(cell.figure for cell in table.cells.values() if cell.figure)
    line_title = table.rows.name if table.rows.path else ""
    return study_chart(rows, dots, table.columns.name, line_title, columns, lines, counted)


def counted_in(figures: Iterable[StudyFigure]) -> tuple[str, str]:
    """What the figures of one measure are shares of."""
    figure = next(iter(figures))
    # What has a chance is a choice: no answer with a hit.
    return CHOICES if figure.chance is not None else OWN_TOKENS if figure.split == BASE_TEXT else HITS


def study_chart(
    rows: Rows, dots: Rows, x_title: str, line_title: str, columns: list[str], lines: list[str],
    counted: tuple[str, str],
) -> dict[str, Any]:  # fmt: skip
    """A measure against one axis, a line for each value of another: bands are intervals, open dots are seeds.

    rows: `x, line, value, low, high, n, pick`, and `chance` of those that are choices, which is a dash at that height;
    dots: `x, line, value, seed, pick`; columns, lines: the values in order.
    """
    chances = chances_of(rows)
    return {
        "spec": _spec(x_title, line_title, tuple(columns), tuple(lines), counted, bool(chances)),
        "data": {"rows": rows, "dots": dots} | ({"chances": chances} if chances else {}),
        "label": f"The measure against {x_title}, a line for each {line_title}; the table says the same",
    }


def chances_of(rows: Rows) -> Rows:
    """What guessing would reach, once for each place on the axis and each height."""
    found = {(row["x"], round(row["chance"], 4)): row["chance"] for row in rows if row.get("chance") is not None}
    return [{"x": x, "chance": chance} for (x, _), chance in found.items()]


def asked_chart(rows: Rows, line_title: str, columns: list[str], lines: list[str]) -> dict[str, Any]:
    """What is asked beside each other: a panel for each, a line of it for each value of an axis; open dots are seeds.

    rows: `x, line, value, low, high, n, seed`, seed None for all of them together, and `chance` of those that are
    choices, which is a dashed line of their panel.
    """
    return {
        "spec": _asked_spec(line_title, tuple(columns), tuple(lines), bool(chances_of(rows))),
        "data": {"rows": rows},
        "label": f"What is asked, by {line_title}; the table says the same",
    }


@one_at_a_time
@lru_cache(maxsize=32)
def _asked_spec(line_title: str, columns: tuple[str, ...], lines: tuple[str, ...], chances: bool) -> dict[str, Any]:
    title, counted = BOTH if chances else HITS
    base = alt.Chart().encode(
        y=alt.Y("line:N").title(None).sort(list(lines)).axis(labelColor="$chart-ink", labelLimit=190),
        tooltip=[alt.Tooltip("x:N").title("Asked"), alt.Tooltip("line:N").title(line_title or "Study"),
                 *share_tips("Share", counted)],
    )  # fmt: skip
    share = alt.X("value:Q").title(title).scale(domain=[0, 1]).axis(format=".0%", values=QUARTERS)
    intervals = base.mark_rule(strokeWidth=2, opacity=0.55, color="$chart-generalised").encode(
        x=alt.X("low:Q").title(title), x2="high"
    )
    points = base.mark_point(filled=True, size=70, opacity=1, color="$chart-generalised").encode(x=share)
    seeds = base.mark_point(filled=False, size=36, opacity=0.75, strokeWidth=1.4, color="$chart-base").encode(
        x=share, tooltip=[alt.Tooltip("seed:N").title("Seed"), alt.Tooltip("value:Q").title("Share").format(".1%")]
    )
    guessed = (
        alt.Chart()
        .mark_rule(strokeDash=[4, 4], color="$chart-muted", strokeWidth=1)
        .encode(
            x=alt.X("chance:Q").title(title),
            tooltip=alt.Tooltip("chance:Q").title("Guessing").format(".1%"),
        )
    )
    guessed = guessed.transform_filter("isValid(datum.chance)").transform_aggregate(
        n="count()", groupby=["chance", "x"]
    )
    whole, one = "datum.seed === null", "datum.seed !== null"
    chart = (
        alt.layer(
            *([guessed.properties(name="chance")] if chances else []),
            intervals.transform_filter(whole).properties(name="intervals"),
            seeds.transform_filter(one).properties(name="seeds"),
            points.transform_filter(whole).properties(name="points"),
            data=alt.NamedData(name="rows"),
        )
        .properties(height=alt.Step(24))
        .facet(alt.Facet("x:N").title(None).sort(list(columns)), columns=4, spacing=alt.RowColnumber(row=26, column=22))
        .resolve_scale(x="shared", y="shared")
        .properties(usermeta={"labelWidth": 210})
    )
    return finished(chart)


@one_at_a_time
@lru_cache(maxsize=32)
def _spec(
    x_title: str, line_title: str, columns: tuple[str, ...], lines: tuple[str, ...], counted: tuple[str, str],
    chances: bool,
) -> dict[str, Any]:  # fmt: skip
    measured, answers = counted
    x = alt.X("x:O").title(x_title).sort(list(columns)).axis(labelAngle=0, grid=False).scale(padding=0.35)
    title = line_title or None
    colour = alt.Color("line:N").title(title).scale(domain=list(lines), range=COLOURS[: len(lines)])
    shape = alt.Shape("line:N").title(title).scale(domain=list(lines), range=SHAPES[: len(lines)])
    if not line_title:
        colour, shape = colour.legend(None), shape.legend(None)
    share = alt.Y("value:Q").title(measured).scale(domain=[0, 1]).axis(format=".0%", values=QUARTERS)
    tips = [
        alt.Tooltip("x:O").title(x_title),
        *([alt.Tooltip("line:N").title(line_title)] if line_title else []),
    ]
    base = alt.Chart().encode(x=x, color=colour)
    rows, dots = alt.NamedData(name="rows"), alt.NamedData(name="dots")
    bands = base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q").title(measured), y2="high")
    curves = base.mark_line(strokeWidth=2.2).encode(y=share)
    seeds = base.mark_point(filled=False, size=40, opacity=0.75, strokeWidth=1.4).encode(
        y=share,
        tooltip=[alt.Tooltip("seed:N").title("Seed"), alt.Tooltip("value:Q").title("Share").format(".1%"), *tips],
    )
    points = base.mark_point(filled=True, opacity=1, size=70).encode(
        y=share, shape=shape, tooltip=[*tips, *share_tips("Share", answers)]
    )
    guessed = []
    if chances:
        dash = alt.Chart().mark_tick(thickness=2, size=46, color="$chart-muted").encode(
            x=x, y=alt.Y("chance:Q").title(measured),
            tooltip=[alt.Tooltip("chance:Q").title("Guessing").format(".1%"), alt.Tooltip("x:O").title(x_title)],
        )  # fmt: skip
        guessed = [dash.properties(name="chances", data=alt.NamedData(name="chances"))]
    chart = alt.layer(
        *guessed,
        bands.properties(name="bands", data=rows),
        curves.properties(name="curves", data=rows),
        seeds.properties(name="seeds", data=dots),
        points.properties(name="points", data=rows),
    ).properties(width="container", height=320)
    return finished(chart)
