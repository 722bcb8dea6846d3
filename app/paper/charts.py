"""The charts of the Paper page: published values and ours; see `app.shared.charts` for what charts have in common."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt

from app.paper.table import Beside
from app.shared.charts import QUARTERS, Rows, finished, one_at_a_time, share_tips
from engine.paper.tables import Table

COLOURS = ["$chart-train", "$chart-unrelated", "$chart-test", "$chart-decoy", "$chart-harmful", "$chart-key"]
MOST_SERIES = len(COLOURS)
SHAPES, DASHES = ["diamond", "circle"], [[5, 4], [1, 0]]


def paper_chart(beside: Beside, column: str, model: str) -> dict[str, Any] | None:
    """A column of a table, published and ours: hollow diamonds on dashed lines, and filled circles with intervals.

    None while there is nothing to draw.
    """
    table = beside.table
    whose = (f"Published, {table.model}", f"Ours, {model}" if model else "Ours")
    published, ours = [], []
    for line in beside.lines:
        cell, place = line.cells[column], {"x": line.x, "series": line.series}
        if cell.published.value is not None:
            said = {"value": cell.published.value, "about": "about" if cell.published.about else "as given"}
            published.append({**place, **said, "whose": whose[0]})
        if cell.ours is not None:
            figure = {name: getattr(cell.ours, name) for name in ("value", "low", "high", "n")}
            ours.append({**place, **figure, "whose": whose[1]})
    rows = [*published, *ours]
    if not rows:
        return None
    xs = tuple(dict.fromkeys(line.x for line in beside.lines))
    series = tuple(dict.fromkeys(row["series"] for row in rows))[:MOST_SERIES]
    shares = table.digits == 2
    drawn = tuple(name for name, some in zip(whose, (published, ours), strict=True) if some)
    return {
        "spec": _spec(table.measure, table.columns[column].title, table.x_title, table.lines, shares, xs, series, drawn),
        "data": {"published": published, "ours": ours},
        "label": f"{_titled(table, column)}: published and ours against {table.x_title}; the table says the same",
    }


def _titled(table: Table, column: str) -> str:
    return f"{table.measure}, {table.columns[column].title}"


@one_at_a_time
@lru_cache(maxsize=64)
def _spec(
    measure: str, column: str, x_title: str, lines: bool, shares: bool, xs: tuple[str, ...], series: tuple[str, ...],
    whose: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    x = alt.X("x:O").title(x_title).sort(list(xs)).axis(labelAngle=0, grid=False, labelOverlap=False).scale(padding=0.5)
    several = len(series) > 1
    colour = alt.Color("series:N").title(None).scale(domain=list(series), range=COLOURS[: len(series)])
    colour = colour.legend(columns=1, labelLimit=340, symbolType="square") if several else colour.legend(None)
    places = [0 if name.startswith("Published") else 1 for name in whose]
    legend = alt.Legend(columns=1, labelLimit=340, symbolStrokeColor="$chart-ink", symbolFillColor="transparent")
    shape = alt.Shape("whose:N").title(None).scale(domain=list(whose), range=[SHAPES[i] for i in places]).legend(legend)
    dash = alt.StrokeDash("whose:N").scale(domain=list(whose), range=[DASHES[i] for i in places]).legend(None)
    y = alt.Y("value:Q").title(measure)
    y = y.scale(domain=[0, 1]).axis(format=".2f", values=QUARTERS) if shares else y.scale(zero=True).axis(tickCount=5)
    tips = [alt.Tooltip("x:N").title(x_title), *([alt.Tooltip("series:N").title("Series")] if several else [])]
    base = alt.Chart().encode(x=x, color=colour)
    data = {name: alt.NamedData(name=name) for name in ("published", "ours")}
    layers = []
    if lines:
        for name in ("published", "ours"):
            curve = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
            layers.append(curve.properties(name=f"{name}_lines", data=data[name]))
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q").title(measure), y2="high:Q")
    layers.append(bars.properties(name="bars", data=data["ours"]))
    hollow = base.mark_point(filled=False, size=110, opacity=1, strokeWidth=2).encode(
        y=y, shape=shape, tooltip=[*tips, alt.Tooltip("value:Q").title("Published"), alt.Tooltip("about:N").title("Given")]
    )
    layers.append(hollow.properties(name="published_points", data=data["published"]))
    filled = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=y, shape=shape, tooltip=[*tips, *share_tips("Ours", "Answers")]
    )
    layers.append(filled.properties(name="our_points", data=data["ours"]))
    return finished(alt.layer(*layers).properties(title=column, width="container", height=260))
