"""The charts of the Results page as Vega-Lite specifications; see `app.charts` for what they have in common."""

from __future__ import annotations

import json
from typing import Any

from app.charts import Rows, base_spec
from app.words import METRICS, SPLITS, language_name, metric_name

SPLIT_ORDER = [name.capitalize() for name in SPLITS.values()]
SPLIT_COLOURS = [f"$chart-{split}" for split in SPLITS]
MODELS = ["Base model", "Memorised (stage 1)", "Generalised (stage 2)"]
MODEL_COLOURS = ["$chart-base", "$chart-memorised", "$chart-generalised"]
MAP_WIDTH = 1100
MODEL_SHAPES = ["circle", "diamond", "square"]


def _tooltip(title: str, *first: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        *first,
        {"field": "value", "title": title, "format": ".1%"},
        {"field": "low", "title": "95 % interval from", "format": ".1%"},
        {"field": "high", "title": "to", "format": ".1%"},
        {"field": "n", "title": "Questions"},
        {"field": "n_facts", "title": "Facts"},
    ]


def _share(title: str | None, **axis: Any) -> dict[str, Any]:
    return {
        "field": "value",
        "type": "quantitative",
        "title": title,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "values": [0, 0.25, 0.5, 0.75, 1], **axis},
    }


def compare_chart(rows: Rows, metric: str, chance: float | None, languages: list[str]) -> dict[str, Any]:
    """Small multiples by split: for each language a dot with its interval for base, memorised and generalised."""
    title = metric_name(metric)
    shift = {"field": "model", "scale": {"domain": MODELS}}
    colour = {
        "field": "model",
        "type": "nominal",
        "title": None,
        "scale": {"domain": MODELS, "range": MODEL_COLOURS},
        "legend": {"orient": "top"},
    }
    tooltip = _tooltip(
        title,
        {"field": "split", "title": "Prompts"},
        {"field": "language", "title": "Language"},
        {"field": "checkpoint", "title": "Checkpoint"},
    )
    shape = {"field": "model", "title": None, "scale": {"domain": MODELS, "range": MODEL_SHAPES}}
    same = {"yOffset": shift, "color": colour, "tooltip": tooltip}
    layers: Rows = [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.55},
            "encoding": {
                **same,
                "x": {"field": "low", "type": "quantitative", "title": title},
                "x2": {"field": "high"},
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 62, "opacity": 1},
            "encoding": {**same, "x": _share(title), "shape": shape},
        },
    ]
    if chance is not None:
        layers.insert(0, _chance_rule("x", chance))
    names = [language_name(code) for code in languages]
    spec = base_spec(
        usermeta={"labelWidth": 74},
        data={"name": "rows"},
        facet={"field": "split", "type": "nominal", "title": None, "sort": SPLIT_ORDER},
        columns=4,
        spacing={"row": 26, "column": 22},
        spec={
            "height": {"step": 11},
            "encoding": {
                "y": {
                    "field": "language",
                    "type": "nominal",
                    "title": None,
                    "sort": names,
                    "scale": {"paddingInner": 0.35, "paddingOuter": 0.2},
                    "axis": {"labelColor": "$chart-ink"},
                },
            },
            "layer": layers,
        },
        resolve={"scale": {"x": "shared", "y": "shared"}},
    )
    label = f"{title} by prompts, language and checkpoint; the table below has the same figures"
    return {"spec": spec, "data": {"rows": rows}, "label": label}


def curve_chart(rows: Rows, metric: str, chance: float | None) -> dict[str, Any]:
    """Generalisation against the depth of memorisation, before and after stage 2; bands are intervals."""
    title = metric_name(metric)
    used = {r["split"] for r in rows}
    domain = [s for s in SPLIT_ORDER if s in used]
    colour = {
        "field": "split",
        "type": "nominal",
        "title": None,
        "scale": {"domain": domain, "range": [c for s, c in zip(SPLIT_ORDER, SPLIT_COLOURS, strict=True) if s in used]},
    }
    tooltip = _tooltip(title, {"field": "split", "title": "Prompts"}, {"field": "checkpoint", "title": "Checkpoint"})
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "opacity": 0.13},
            "encoding": {"y": {"field": "low", "type": "quantitative", "title": title}, "y2": {"field": "high"}},
        },
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": _share(title)}},
        {
            "mark": {"type": "point", "filled": True, "size": 58, "opacity": 1},
            "encoding": {
                "y": _share(title),
                "tooltip": tooltip,
                "shape": {"field": "split", "title": None, "scale": {"domain": domain}},
            },
        },
    ]
    if chance is not None:
        layers.insert(0, _chance_rule("y", chance))
    epochs = sorted({r["epoch"] for r in rows})
    spec = base_spec(
        usermeta={"labelWidth": 66},
        data={"name": "rows"},
        facet={"field": "panel", "type": "nominal", "title": None, "sort": ["Before stage 2", "After stage 2"]},
        columns=2,
        spacing=30,
        spec={
            "height": 250,
            "encoding": {
                "x": {
                    "field": "epoch",
                    "type": "quantitative",
                    "title": "Epochs of memorising (0 is the base model)",
                    "axis": {"values": epochs, "format": "d", "grid": False, "labelOverlap": True},
                },
                "color": colour,
            },
            "layer": layers,
        },
    )
    label = f"{title} against the epochs of stage 1, before and after stage 2; the table below has the same figures"
    return {"spec": spec, "data": {"rows": rows}, "label": label}


def _chance_rule(channel: str, chance: float) -> dict[str, Any]:
    return {
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": "$chart-muted", "strokeWidth": 1},
        "encoding": {channel: {"datum": chance}},
    }


def map_chart(cells: Rows, facts: Rows, prompts: Rows, measure: str) -> dict[str, Any]:
    """Facts × prompts: a cell for each answer. `measure`: `hit` or `probability`.

    Cells: `f, p` (ids), `hit` or `value`, `pick`. Facts and prompts carry what the tooltips and axes say.
    """
    hit = measure == "hit"
    labels = min(300, 6 * max((len(p["short"]) for p in prompts), default=0))
    step = max(5, min(18, (MAP_WIDTH - labels) // max(1, len(facts) + 2)))
    columns, middles = _map_columns(facts)
    colour: dict[str, Any] = {"field": "value", "type": "quantitative", "title": METRICS["object_probability"],
                              "scale": {"domain": [0, 1], "range": ["$chart-low", "$chart-generalised"]},
                              "legend": {"format": ".0%", "gradientLength": 160}}  # fmt: skip
    if hit:
        colour = {"field": "hit", "type": "nominal", "title": None,
                  "scale": {"domain": ["✓ hit", "✕ miss"], "range": ["$chart-hit", "$chart-miss"]},
                  "legend": {"symbolType": "square"}}  # fmt: skip
    last = {"field": "hit", "title": "Answer"} if hit else {"field": "value", "title": "Probability", "format": ".3~p"}
    spec = base_spec(
        data={"name": "cells"},
        transform=[
            {"lookup": "f", "from": {"data": {"name": "facts"}, "key": "f", "fields": ["subject", "object", "group"]}},
            {"lookup": "p", "from": {"data": {"name": "prompts"}, "key": "p", "fields": ["text", "short", "split"]}},
        ],
        facet={"row": {"field": "split", "title": None, "sort": SPLIT_ORDER, "header": {"labelOrient": "top"}}},
        align="each",
        spacing=12,
        spec={
            "width": {"step": step},
            "height": {"step": 16},
            "mark": {"type": "rect", "cursor": "pointer", "strokeWidth": 0},
            "encoding": {
                "x": {
                    "field": "f",
                    "type": "ordinal",
                    "title": None,
                    "scale": {"domain": columns, "padding": 0.08},
                    "axis": {
                        "orient": "top",
                        "values": list(middles),
                        "labelExpr": f"{json.dumps(middles)}[datum.value]",
                        "labelColor": "$chart-ink",
                        "labelFontSize": 13,
                        "labelFontWeight": "bold",
                        "labelAngle": 0,
                        "labelLimit": 300,
                    },
                },
                "y": {
                    "field": "short",
                    "type": "nominal",
                    "title": None,
                    "sort": [p["short"] for p in prompts],
                    "scale": {"padding": 0.08},
                    "axis": {"labelLimit": 300, "labelFontSize": 11},
                },
                "color": colour,
                "tooltip": [
                    {"field": "subject", "title": "Subject"},
                    {"field": "object", "title": "Object"},
                    {"field": "text", "title": "Prompt"},
                    last,
                ],
            },
        },
        resolve={"scale": {"y": "independent"}},
    )
    label = f"A map of {len(facts)} facts by {len(prompts)} prompts; the table of answers below says the same"
    return {"spec": spec, "data": {"cells": cells, "facts": facts, "prompts": prompts}, "label": label,
            "renderer": "canvas"}  # fmt: skip


def _map_columns(facts: Rows) -> tuple[list[int], dict[int, str]]:
    """The facts' ids in the order of the map's columns, with a gap between the groups; and a title at each middle."""
    columns: list[int] = []
    titles: dict[int, str] = {}
    for group in ("Held out", "Trained"):
        ids = [f["f"] for f in facts if f["group"] == group]
        if ids:
            columns += [-1, -2] if columns else []
            columns += ids
            titles[ids[len(ids) // 2]] = f"{group} ({len(ids)})"
    return columns, titles
