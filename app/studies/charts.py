"""The chart of the Studies page, built with Altair; see `app.shared.charts` for what charts have in common."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt

from app.shared.charts import QUARTERS, Rows, finished, one_at_a_time, share_tips
from app.studies.table import Table
from app.studies.view import value_name

# As many lines as can be told apart; a table has all of them.
MOST_LINES = 6
COLOURS = ["$chart-train", "$chart-test", "$chart-unrelated", "$chart-decoy", "$chart-harmful", "$chart-key"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]


def chart_of(table: Table) -> dict[str, Any] | None:
    """The table as a chart; None while there is nothing to draw."""
    lines = [value_name(value) for value in table.rows.values][:MOST_LINES]
    columns = [value_name(value) for value in table.columns.values]
    rows, dots = [], []
    for line in lines:
        for column in columns:
            cell = table.cells.get((line, column))
            if cell is None or cell.figure is None:
                continue
            figure, at = cell.figure, {"x": column, "line": line}
            rows.append(at | {k: getattr(figure, k) for k in ("value", "low", "high", "n")})
            if len(figure.seeds) > 1:
                dots += [at | {"value": own["value"], "seed": seed} for seed, own in figure.seeds.items()]
    if not rows:
        return None
    return study_chart(rows, dots, table.columns.name, table.rows.name if table.rows.path else "", columns, lines)


def study_chart(
    rows: Rows, dots: Rows, x_title: str, line_title: str, columns: list[str], lines: list[str]
) -> dict[str, Any]:
    """A measure against one axis, a line for each value of another: bands are intervals, open dots are seeds.

    rows: `x, line, value, low, high, n, pick`; dots: `x, line, value, seed, pick`; columns, lines: the values in order.
    """
    return {
        "spec": _spec(x_title, line_title, tuple(columns), tuple(lines)),
        "data": {"rows": rows, "dots": dots},
        "label": f"The measure against {x_title}, a line for each {line_title}; the table says the same",
    }


@one_at_a_time
@lru_cache(maxsize=32)
def _spec(x_title: str, line_title: str, columns: tuple[str, ...], lines: tuple[str, ...]) -> dict[str, Any]:
    x = alt.X("x:O").title(x_title).sort(list(columns)).axis(labelAngle=0, grid=False).scale(padding=0.35)
    title = line_title or None
    colour = alt.Color("line:N").title(title).scale(domain=list(lines), range=COLOURS[: len(lines)])
    shape = alt.Shape("line:N").title(title).scale(domain=list(lines), range=SHAPES[: len(lines)])
    if not line_title:
        colour, shape = colour.legend(None), shape.legend(None)
    share = alt.Y("value:Q").title("Answers with a hit").scale(domain=[0, 1]).axis(format=".0%", values=QUARTERS)
    tips = [
        alt.Tooltip("x:O").title(x_title),
        *([alt.Tooltip("line:N").title(line_title)] if line_title else []),
    ]
    base = alt.Chart().encode(x=x, color=colour)
    rows, dots = alt.NamedData(name="rows"), alt.NamedData(name="dots")
    bands = base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q").title("Answers with a hit"), y2="high")
    curves = base.mark_line(strokeWidth=2.2).encode(y=share)
    seeds = base.mark_point(filled=False, size=40, opacity=0.75, strokeWidth=1.4, cursor="pointer").encode(
        y=share,
        tooltip=[alt.Tooltip("seed:N").title("Seed"), alt.Tooltip("value:Q").title("Share").format(".1%"), *tips],
    )
    points = base.mark_point(filled=True, opacity=1, size=70).encode(
        y=share, shape=shape, tooltip=[*tips, *share_tips("Share", "Answers")]
    )
    chart = alt.layer(
        bands.properties(name="bands", data=rows),
        curves.properties(name="curves", data=rows),
        seeds.properties(name="seeds", data=dots),
        points.properties(name="points", data=rows),
    ).properties(width="container", height=320)
    return finished(chart)
