"""The chart of the Studies page, built with Altair; see `app.shared.charts` for what charts have in common."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt

from app.shared.charts import QUARTERS, Rows, finished, one_at_a_time, share_tips

# As many lines as can be told apart; a table has all of them.
MOST_LINES = 6
COLOURS = ["$chart-train", "$chart-test", "$chart-unrelated", "$chart-decoy", "$chart-harmful", "$chart-key"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]


def study_chart(
    rows: Rows, dots: Rows, x_title: str, line_title: str, columns: list[str], lines: list[str]
) -> dict[str, Any]:
    """A measure against one axis, a line for each value of another: bands are intervals, open dots are seeds.

    rows: `x, line, value, low, high, n, pick`, and `chance` of those that are choices, which is a dash at that height;
    dots: `x, line, value, seed, pick`; columns, lines: the values in order.
    """
    return {
        "spec": _spec(x_title, line_title, tuple(columns), tuple(lines), bool(chances := chances_of(rows))),
        "data": {"rows": rows, "dots": dots} | ({"chances": chances} if chances else {}),
        "label": f"The measure against {x_title}, a line for each {line_title}; the table says the same",
    }


def chances_of(rows: Rows) -> Rows:
    """What guessing would reach, once for each place on the axis and each height."""
    found = {(row["x"], round(row["chance"], 4)): row["chance"] for row in rows if row.get("chance") is not None}
    return [{"x": x, "chance": chance} for (x, _), chance in found.items()]


@one_at_a_time
@lru_cache(maxsize=32)
def _spec(
    x_title: str, line_title: str, columns: tuple[str, ...], lines: tuple[str, ...], chances: bool
) -> dict[str, Any]:
    # On a narrow screen many long headings would lie over each other.
    turned = {"labelAngle": -35, "labelAlign": "right"} if len(columns) > 5 and len("".join(columns)) > 40 else {}
    axis = alt.Axis(**{"labelAngle": 0, "grid": False, **turned})
    x = alt.X("x:O").title(x_title).sort(list(columns)).axis(axis).scale(padding=0.35)
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
    guessed = []
    if chances:
        dash = alt.Chart().mark_tick(thickness=2, size=46, color="$chart-muted").encode(
            x=x, y=alt.Y("chance:Q").title("Answers with a hit"),
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
