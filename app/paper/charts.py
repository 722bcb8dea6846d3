"""The charts of the Paper page: published values and ours; see `app.shared.charts` for what charts have in common."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import altair as alt

from app.paper.table import Beside
from app.shared.charts import QUARTERS, finished, one_at_a_time, share_tips

COLOURS = ["$chart-train", "$chart-unrelated", "$chart-test", "$chart-decoy", "$chart-harmful", "$chart-key"]
MOST_SERIES = len(COLOURS)
PUBLISHED = "Published"
SHAPES, DASH = ["diamond", "circle"], [5, 4]


def paper_chart(beside: Beside, column: str, model: str) -> dict[str, Any] | None:
    """A column of a table, published and ours: hollow diamonds on dashed lines, and filled circles with intervals.

    None while there is nothing to draw.
    """
    table = beside.table
    whose = (f"{PUBLISHED}, {table.model}", f"Ours, {model}" if model else "Ours")
    published, ours = [], []
    for line in beside.lines:
        cell, place = line.cells[column], {"x": line.x, "series": line.series}
        if cell.published.value is not None:
            said = {"value": cell.published.value, "about": "about" if cell.published.about else "as given"}
            published.append({**place, **said, "whose": whose[0], "place": f"{line.series} {whose[0]}"})
        if cell.ours is not None:
            figure = {name: getattr(cell.ours, name) for name in ("value", "low", "high", "n")}
            ours.append({**place, **figure, "whose": whose[1], "place": f"{line.series} {whose[1]}"})
    rows = [*published, *ours]
    if not rows:
        return None
    xs = tuple(dict.fromkeys(line.x for line in beside.lines))
    series = tuple(dict.fromkeys(row["series"] for row in rows))[:MOST_SERIES]
    about = table.columns[column]
    titles = about.measure or table.measure, about.title, table.x_title
    drawn = tuple(name for name, some in zip(whose, (published, ours), strict=True) if some)
    return {
        "spec": _spec(*titles, about.counted, table.lines, table.digits_of(column), xs, series, drawn),
        "data": {"published": published, "ours": ours},
        "label": f"{', '.join(titles[:2])}: published and ours against {titles[2]}; the table says the same",
    }


@one_at_a_time
@lru_cache(maxsize=64)
def _spec(
    measure: str, column: str, x_title: str, counted: str, lines: bool, digits: int, xs: tuple[str, ...],
    series: tuple[str, ...], whose: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    # Cosines and counts have other digits than shares, which have two.
    shares = digits == 2
    # Joined, what is at one place lies above each other; else each has a place of its own there.
    kind: Literal["point", "band"] = "point" if lines else "band"
    x = alt.X("x:O").title(x_title).sort(None).axis(labelAngle=0, grid=False)
    x = x.scale(type=kind, domain=list(xs), padding=0.5) if lines else x.scale(type=kind, domain=list(xs), padding=0.3)
    places = [f"{one} {who}" for one in series for who in whose]
    offset = alt.XOffset("place:N").scale(type="point", domain=places, padding=1)
    several = len(series) > 1
    colour = alt.Color("series:N").title(None).scale(domain=list(series), range=COLOURS[: len(series)])
    colour = colour.legend(columns=1, labelLimit=300, symbolType="square") if several else colour.legend(None)
    legend = alt.Legend(columns=1, labelLimit=300, symbolStrokeColor="$chart-ink", symbolFillColor="transparent")
    shapes = [SHAPES[not who.startswith(PUBLISHED)] for who in whose]
    shape = alt.Shape("whose:N").title(None).scale(domain=list(whose), range=shapes).legend(legend)
    y = alt.Y("value:Q").title(measure)
    y = y.scale(domain=[0, 1]).axis(format=".2f", values=QUARTERS) if shares else y.scale(zero=True).axis(tickCount=5)
    tips = [alt.Tooltip("x:N").title(x_title), *([alt.Tooltip("series:N").title("Series")] if several else [])]
    base = alt.Chart().encode(x=x, color=colour)
    base = base if lines else base.encode(xOffset=offset)
    published, ours = alt.NamedData(name="published"), alt.NamedData(name="ours")
    own = share_tips("Ours", counted.capitalize(), ".1%" if shares else f",.{digits}f")
    given = [alt.Tooltip("value:Q").title(PUBLISHED), alt.Tooltip("about:N").title("Given")]
    layers = [
        base.mark_rule(strokeWidth=2)
        .encode(y=alt.Y("low:Q").title(measure), y2="high:Q")
        .properties(name="bars", data=ours),
        base.mark_point(filled=False, size=110, opacity=1, strokeWidth=2)
        .encode(y=y, shape=shape, tooltip=[*tips, *given])
        .properties(name="published_points", data=published),
        base.mark_point(filled=True, size=80, opacity=1)
        .encode(y=y, shape=shape, tooltip=[*tips, *own])
        .properties(name="our_points", data=ours),
    ]
    if lines:
        curve = base.mark_line(strokeWidth=2).encode(y=y)
        dashed = base.mark_line(strokeWidth=2, strokeDash=DASH).encode(y=y)
        joined = (
            dashed.properties(name="published_lines", data=published),
            curve.properties(name="our_lines", data=ours),
        )
        layers = [*joined, *layers]
    spec = finished(alt.layer(*layers).properties(title=column, width="container", height=260))
    # Beside each other the two legends are wider than a telephone.
    spec["config"]["legend"]["layout"] = {"top": {"anchor": "start", "direction": "vertical"}}
    return spec
