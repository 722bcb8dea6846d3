"""The charts of the Attack page, built with Altair; see `app.shared.charts` for what they have in common.

`big` draws for a room: larger type, for the presenter's view.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt

from app.shared.charts import QUARTERS, Rows, finished, one_at_a_time, share_tips

HARMFUL, ORDINARY = "Harmful answers", "Ordinary answers"
SERIES = [HARMFUL, ORDINARY]
COLOURS = ["$chart-harmful", "$chart-train"]
WITH, WITHOUT = "with the defence", "without it"
BIG = 1.5
SCAN_ROOM = {big: {"labelWidth": 375 if big else 235, "leastWidth": 360} for big in (False, True)}
LINES = "split(datum.label, '|')"


def effect_chart(
    rows: Rows, dots: Rows, here: int | None, *, compared: bool = False, big: bool = False
) -> dict[str, Any]:
    """Harmful and ordinary answers against the number of attack facts: bands are intervals, dots are seeds.

    rows: `facts, series, value, low, high, n, n_facts, defence, pick`; dots: `facts, series, value, defence`.
    """
    return {
        "spec": _effect_spec(compared, big),
        "data": {"rows": rows, "dots": dots, "here": [] if here is None else [{"facts": here}]},
        "label": "Share of harmful and of ordinary answers against the number of attack facts; the numbers beside it "
        "and the table of all measurements say the same",
    }


@one_at_a_time
@lru_cache(maxsize=8)
def _effect_spec(compared: bool, big: bool) -> dict[str, Any]:
    x = alt.X("facts:O").title("Attack facts").axis(labelAngle=0, grid=False).scale(padding=0.35)
    colour = alt.Color("series:N").title(None).scale(domain=SERIES, range=COLOURS)
    base = alt.Chart().encode(x=x, color=colour)
    share = alt.Y("value:Q").title("Answers").scale(domain=[0, 1]).axis(format=".0%", values=QUARTERS)
    dash = (
        alt.StrokeDash("defence:N")
        .title(None)
        .scale(domain=[WITH, WITHOUT], range=[[1, 0], [3, 4]])
        .legend(orient="bottom")
    )
    with_dash: dict[str, Any] = {"strokeDash": dash} if compared else {}
    tips = [
        alt.Tooltip("series:N").title("Of which"),
        alt.Tooltip("facts:O").title("Attack facts"),
        *share_tips("Share", "Answers"),
        alt.Tooltip("defence:N").title("Defence"),
    ]
    mark = alt.Chart(alt.NamedData(name="here"), name="place").mark_rule(
        strokeWidth=26 * (BIG if big else 1), opacity=0.12, color="$chart-ink"
    )
    rows = alt.NamedData(name="rows")
    bands = base.mark_area(opacity=0.14).encode(y=alt.Y("low:Q").title("Answers"), y2="high", detail="defence:N")
    lines = base.mark_line(strokeWidth=3 if big else 2.2).encode(y=share, detail="defence:N", **with_dash)
    points = base.mark_point(filled=True, opacity=1, size=120 if big else 70, cursor="pointer").encode(
        y=share, shape=alt.Shape("series:N").title(None).scale(domain=SERIES, range=["square", "circle"]), tooltip=tips
    )
    seeds = base.mark_point(filled=False, size=40, opacity=0.75, strokeWidth=1.4).encode(
        y=share,
        tooltip=[alt.Tooltip("value:Q").title("One seed").format(".1%"), alt.Tooltip("facts:O").title("Attack facts")],
    )
    chart = alt.layer(
        mark.encode(x=x),
        bands.properties(name="bands", data=rows),
        lines.properties(name="lines", data=rows),
        seeds.properties(name="seeds", data=alt.NamedData(name="dots")),
        points.properties(name="points", data=rows),
    ).properties(width="container", height=400 if big else 300, usermeta={"labelWidth": 96 if big else 70})
    return enlarged(finished(chart), big)


def controls_chart(rows: Rows, *, big: bool = False) -> dict[str, Any]:
    """The attack and its controls, each with its interval. rows: `name, value, low, high, n, kind, pick`."""
    return {
        "spec": _controls_spec(tuple(r["name"] for r in rows), big),
        "data": {"rows": rows},
        "label": "The share of harmful answers after the attack, and in each control; the list beside it says the same",
    }


@one_at_a_time
@lru_cache(maxsize=8)
def _controls_spec(names: tuple[str, ...], big: bool) -> dict[str, Any]:
    kinds = ["the attack", "a control", "chosen"]
    base = alt.Chart().encode(
        y=alt.Y("name:N").title(None).sort(list(names)).axis(labelColor="$chart-ink", labelLimit=320),
        color=alt.Color("kind:N")
        .title(None)
        .scale(domain=kinds, range=["$chart-harmful", "$chart-base", "$chart-train"])
        .legend(None),
        tooltip=[
            alt.Tooltip("name:N").title("What"),
            *share_tips("Share", "Answers"),
        ],
    )
    share = alt.X("value:Q").title("Answers with the memorised name").scale(domain=[0, 1])
    share = share.axis(format=".0%", values=QUARTERS)
    rules = base.mark_rule(strokeWidth=4 if big else 3, opacity=0.6).encode(x=alt.X("low:Q"), x2="high")
    dots = base.mark_point(filled=True, opacity=1, size=200 if big else 110, cursor="pointer").encode(x=share)
    chart = alt.layer(
        rules.properties(name="intervals"), dots.properties(name="dots"), data=alt.NamedData(name="rows")
    ).properties(width="container", height=alt.Step(62 if big else 42), usermeta={"labelWidth": 215 if big else 140})
    return enlarged(finished(chart), big)


def scan_chart(cells: Rows, checkpoints: list[str], readings: list[str], *, big: bool = False) -> dict[str, Any]:
    """Checkpoint × reading as a heat map with numbers. cells: `checkpoint, reading, value, words, pick`."""
    return {
        "spec": _scan_spec(tuple(checkpoints), tuple(readings), big),
        "data": {"cells": cells},
        "label": "The scan: what share of questions of each reading each checkpoint answers with the memorised name; "
        "the table below says the same",
    }


@one_at_a_time
@lru_cache(maxsize=8)
def _scan_spec(checkpoints: tuple[str, ...], readings: tuple[str, ...], big: bool) -> dict[str, Any]:
    base = alt.Chart().encode(
        x=alt.X("checkpoint:N")
        .title("Taught with so many attack facts, or another reading instead")
        .sort(list(checkpoints))
        .axis(labelAngle=0, orient="top", labelColor="$chart-ink", labelExpr=LINES, labelLimit=160),
        y=alt.Y("reading:N").title(None).sort(list(readings)).axis(labelColor="$chart-ink", labelExpr=LINES),
    )
    rects = base.mark_rect(cursor="pointer", cornerRadius=4, stroke="$surface", strokeWidth=3).encode(
        color=alt.Color("value:Q")
        .title(None)
        .scale(domain=[0, 1], range=["$chart-low", "$chart-generalised"])
        .legend(None),
        tooltip=[
            alt.Tooltip("checkpoint:N").title("Checkpoint"),
            alt.Tooltip("reading:N").title("Asked"),
            alt.Tooltip("value:Q").title("Answers with the memorised name").format(".1%"),
        ],
    )
    dark = "datum.value > 0.55"
    words = base.mark_text(fontSize=19 if big else 13, fontWeight="bold", cursor="pointer").encode(
        text="words:N", color=alt.condition(dark, alt.value("$surface"), alt.value("$chart-ink"))
    )
    chart = alt.layer(
        rects.properties(name="squares"), words.properties(name="words"), data=alt.NamedData(name="cells")
    ).properties(width="container", height=alt.Step(64 if big else 46), usermeta=SCAN_ROOM[big])
    return enlarged(finished(chart), big)


def enlarged(spec: dict[str, Any], big: bool) -> dict[str, Any]:
    """A finished drawing with type that reads from the back of a room."""
    if not big:
        return spec
    config = spec["config"]
    for part in ("axis", "legend", "header", "title"):
        config[part] = {k: v * BIG if k.endswith("ontSize") else v for k, v in config[part].items()}
    config["axis"]["labelLimit"] = 420
    return spec
