"""The charts of the Results page, built with Altair; see `app.shared.charts` for what they have in common."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal

import altair as alt

from app.shared.charts import QUARTERS, Rows, finished, one_at_a_time, share_tips
from app.shared.words import METRICS, SPLITS, language_name, metric_name

SPLIT_COLOURS = {name.capitalize(): f"$chart-{split}" for split, name in SPLITS.items()}
SPLIT_ORDER = list(SPLIT_COLOURS)
# name: colour, shape
MODELS = {
    "Base model": ("$chart-base", "circle"),
    "Facts in the prompt": ("$chart-decoy", "triangle-up"),
    "Memorised (stage 1)": ("$chart-memorised", "diamond"),
    "Generalised (stage 2)": ("$chart-generalised", "square"),
}
PANELS = ["Before stage 2", "After stage 2"]
MAP_WIDTH = 1100
ALOUD = "✓ hit, but says the key token"


def compare_chart(rows: Rows, metric: str, chance: float | None, languages: list[str]) -> dict[str, Any]:
    """Small multiples by split: for each language a dot with its interval for base, memorised and generalised."""
    used = {row["model"] for row in rows}
    return {
        "spec": _compare_spec(
            metric,
            guessed(rows, chance),
            tuple(languages),
            tuple(model for model in MODELS if model in used),
            3 if len({row["split"] for row in rows}) > 4 else 4,
        ),
        "data": {"rows": rows},
        "label": f"{metric_name(metric)} by prompts, language and checkpoint; the table below has the same figures",
    }


@one_at_a_time
@lru_cache(maxsize=64)
def _compare_spec(
    metric: str, chance: float | str | None, languages: tuple[str, ...], models: tuple[str, ...], columns: int
) -> dict[str, Any]:
    title, (colours, shapes) = metric_name(metric), zip(*(MODELS[model] for model in models), strict=True)
    base = alt.Chart().encode(
        y=alt.Y("language:N")
        .title(None)
        .sort([language_name(code) for code in languages])
        .scale(paddingInner=0.35, paddingOuter=0.2)
        .axis(labelColor="$chart-ink"),
        yOffset=alt.YOffset("model:N").scale(domain=models),
        color=alt.Color("model:N").title(None).scale(domain=models, range=colours).legend(orient="top"),
        tooltip=_tooltip(title, split="Prompts", language="Language", checkpoint="Checkpoint"),
    )
    intervals = base.mark_rule(strokeWidth=2, opacity=0.55).encode(x=alt.X("low:Q").title(title), x2="high")
    dots = base.mark_point(filled=True, size=62, opacity=1).encode(
        x=_share(alt.X("value:Q"), title),
        shape=alt.Shape("model:N").title(None).scale(domain=models, range=shapes),
    )
    layers = [intervals.properties(name="intervals"), dots.properties(name="dots")]
    if chance is not None:
        layers.insert(0, _chance_rule(chance, "x"))
    chart = (
        alt.layer(*layers, data=alt.NamedData(name="rows"))
        .properties(height=alt.Step(11))
        .facet(
            alt.Facet("split:N").title(None).sort(SPLIT_ORDER),
            columns=columns,
            spacing=alt.RowColnumber(row=26, column=22),
        )
        .resolve_scale(x="shared", y="shared")
        .properties(usermeta={"labelWidth": 74})
    )
    return finished(chart)


def curve_chart(rows: Rows, metric: str, chance: float | None) -> dict[str, Any]:
    """Generalisation against the depth of memorisation, before and after stage 2; bands are intervals."""
    used, epochs = {r["split"] for r in rows}, sorted({r["epoch"] for r in rows})
    return {
        "spec": _curve_spec(metric, guessed(rows, chance), tuple(s for s in SPLIT_ORDER if s in used), tuple(epochs)),
        "data": {"rows": rows},
        "label": f"{metric_name(metric)} against the epochs of stage 1, before and after stage 2; "
        "the table below has the same figures",
    }


@one_at_a_time
@lru_cache(maxsize=64)
def _curve_spec(
    metric: str, chance: float | str | None, splits: tuple[str, ...], epochs: tuple[float, ...]
) -> dict[str, Any]:
    title = metric_name(metric)
    base = alt.Chart().encode(
        x=alt.X("epoch:Q")
        .title("Epochs of memorising (0 is the base model)")
        .axis(values=list(epochs), format="d", grid=False, labelOverlap=True),
        color=alt.Color("split:N").title(None).scale(domain=list(splits), range=[SPLIT_COLOURS[s] for s in splits]),
    )
    bands = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q").title(title), y2="high")
    lines = base.mark_line(strokeWidth=2).encode(y=_share(alt.Y("value:Q"), title))
    dots = base.mark_point(filled=True, size=58, opacity=1).encode(
        y=_share(alt.Y("value:Q"), title),
        shape=alt.Shape("split:N").title(None).scale(domain=list(splits)),
        tooltip=_tooltip(title, split="Prompts", checkpoint="Checkpoint"),
    )
    layers = [bands.properties(name="bands"), lines.properties(name="lines"), dots.properties(name="dots")]
    if chance is not None:
        layers.insert(0, _chance_rule(chance, "y"))
    chart = (
        alt.layer(*layers, data=alt.NamedData(name="rows"))
        .properties(height=250)
        .facet(alt.Facet("panel:N").title(None).sort(PANELS), columns=2, spacing=30)
        .properties(usermeta={"labelWidth": 66})
    )
    return finished(chart)


def _tooltip(title: str, **first: str) -> list[alt.Tooltip]:
    """`first`: the fields that say which mark it is, with their titles."""
    return [
        *(alt.Tooltip(f"{field}:N").title(named) for field, named in first.items()),
        *share_tips(title, "Questions"),
        alt.Tooltip("n_facts:Q").title("Facts"),
    ]


def _share(axis: Any, title: str) -> Any:
    return axis.title(title).scale(domain=[0, 1]).axis(format=".0%", values=QUARTERS, grid=True)


def guessed(rows: Rows, chance: float | None) -> float | str | None:
    """What guessing would reach: one number, or `apart` where it differs between the rows (their `chance`)."""
    differing = {round(row["chance"], 3) for row in rows if row.get("chance") is not None}
    return "apart" if chance is not None and len(differing) > 1 else chance


def _chance_rule(chance: float | str, axis: Literal["x", "y"]) -> alt.Chart:
    """The dashed line of guessing. Where it is the same everywhere it needs no rows of its own: a single mark in each
    panel; else one for each of the rows' chances there."""
    line: dict[str, Any] = {"strokeDash": [4, 4], "color": "$chart-muted", "strokeWidth": 1}
    if isinstance(chance, str):
        panel = {"x": "split", "y": "panel"}[axis]
        rule = alt.Chart(name="chance").transform_aggregate(n="count()", groupby=["chance", panel])
        tip = alt.Tooltip("chance:Q").title("Chance").format(".1%")
        return rule.mark_rule(**line).encode(
            tooltip=tip, **{axis: alt.X("chance:Q") if axis == "x" else alt.Y("chance:Q")}
        )
    rule = alt.Chart(alt.sequence(0, 1), name="chance").encode(tooltip=alt.value(f"Chance: {chance:.1%}"))
    return rule.mark_rule(**line).encode(**{axis: alt.XDatum(chance) if axis == "x" else alt.YDatum(chance)})


def map_chart(cells: Rows, facts: Rows, prompts: Rows, measure: str) -> dict[str, Any]:
    """Facts × prompts: a cell for each answer. `measure`: `hit` or `probability`.

    Cells: `f, p` (ids), `hit` or `value`, `pick`. Facts and prompts carry what the tooltips and axes say.
    """
    return {
        "spec": _map_spec(facts, prompts, measure),
        "data": {"cells": cells, "facts": facts, "prompts": prompts},
        "label": f"A map of {len(facts)} facts by {len(prompts)} prompts; the table of answers below says the same",
        "renderer": "canvas",
    }


@one_at_a_time
def _map_spec(facts: Rows, prompts: Rows, measure: str) -> dict[str, Any]:
    cell = (
        alt.Chart()
        .mark_rect(cursor="pointer", strokeWidth=0)
        .encode(
            x=_map_columns(facts),
            y=alt.Y("short:N")
            .title(None)
            .sort([p["short"] for p in prompts])
            .scale(padding=0.08)
            .axis(labelLimit=300, labelFontSize=11),
            **_map_values(measure),
        )
        .properties(name="cells", width=alt.Step(_map_step(facts, prompts)), height=alt.Step(16))
    )
    row = alt.Row("split:N").title(None).sort(SPLIT_ORDER).header(labelOrient="top")
    chart = (
        cell.facet(data=alt.NamedData(name="cells"), row=row, align="each", spacing=12)
        .transform_lookup(lookup="f", from_=_lookup("facts", "f", ["subject", "object", "group"]))
        .transform_lookup(lookup="p", from_=_lookup("prompts", "p", ["text", "short", "split"]))
        .resolve_scale(y="independent")
    )
    return finished(chart)


def _lookup(name: str, key: str, fields: list[str]) -> alt.LookupData:
    return alt.LookupData(data=alt.NamedData(name=name), key=key, fields=fields)


def _map_values(measure: str) -> dict[str, Any]:
    """How the map's cells are coloured, and what they say when pointed at."""
    if measure == "hit":
        colour = alt.Color("hit:N").title(None).legend(symbolType="square")
        colour = colour.scale(domain=["✓ hit", ALOUD, "✕ miss"], range=["$chart-hit", "$chart-aloud", "$chart-miss"])
        last = alt.Tooltip("hit:N").title("Answer")
    else:
        colour = alt.Color("value:Q").title(METRICS["object_probability"]).legend(format=".0%", gradientLength=160)
        colour = colour.scale(domain=[0, 1], range=["$chart-low", "$chart-generalised"])
        last = alt.Tooltip("value:Q").title("Probability").format(".3~p")
    said = {"subject": "Subject", "object": "Object", "text": "Prompt"}
    return {"color": colour, "tooltip": [*(alt.Tooltip(f"{k}:N").title(v) for k, v in said.items()), last]}


def _map_step(facts: Rows, prompts: Rows) -> int:
    """The width of a cell, in pixels, that lets the map fit the page."""
    labels = min(300, 6 * max((len(p["short"]) for p in prompts), default=0))
    return max(5, min(18, (MAP_WIDTH - labels) // max(1, len(facts) + 2)))


def _map_columns(facts: Rows) -> alt.X:
    """The facts in the order of the map's columns, with a gap between the groups and a title at each one's middle."""
    columns: list[int] = []
    titles: dict[int, str] = {}
    for group in ("Held out", "Trained"):
        ids = [f["f"] for f in facts if f["group"] == group]
        if ids:
            columns += [-1, -2] if columns else []
            columns += ids
            titles[ids[len(ids) // 2]] = f"{group} ({len(ids)})"
    axis = alt.Axis(
        orient="top",
        values=list(titles),
        labelExpr=f"{json.dumps(titles)}[datum.value]",
        labelColor="$chart-ink",
        labelFontSize=13,
        labelFontWeight="bold",
        labelAngle=0,
        labelLimit=300,
    )
    return alt.X("f:O").title(None).scale(domain=columns, padding=0.08).axis(axis)
