"""Vega-Lite specifications of the charts. Colours are names of the stylesheet, such as `$chart-train`: see `app.vega`.

Each function returns `{"spec", "data", "label"}`: the drawing, its rows by name, and what a screen reader says.
"""

from __future__ import annotations

from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
PERCENT = {"format": ".0%", "tickCount": 5}

Rows = list[dict[str, Any]]


def config() -> dict[str, Any]:
    """The look of every chart."""
    text = {"labelColor": "$chart-muted", "titleColor": "$chart-muted", "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": "transparent",
        "font": "IBM Plex Sans, system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "gridColor": "$chart-grid",
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "titlePadding": 8,
        },
        "legend": {
            **text,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolSize": 90,
            "columnPadding": 18,
            "symbolOpacity": 1,
        },
        "header": {
            "labelColor": "$chart-ink",
            "titleColor": "$chart-muted",
            "labelFontSize": 13,
            "labelFontWeight": "bold",
            "labelAnchor": "start",
        },
        "title": {"color": "$chart-ink", "fontSize": 14, "anchor": "start", "subtitleColor": "$chart-muted"},
    }


def base_spec(**parts: Any) -> dict[str, Any]:
    """A specification with the common look."""
    return {"$schema": SCHEMA, "config": config(), **parts}


def loss_curve(points: Rows, epochs: int) -> dict[str, Any]:
    """The training loss over the epochs of stage 1; each stage 2 branches off at the epoch it starts from."""
    rows = [{"at": _at(p), "value": p["value"], **_stage(p)} for p in points]
    spec = _live_spec("Loss", epochs, {"scale": {"zero": True}, "axis": {"tickCount": 4}})
    spec["layer"] = [{"name": "line", "mark": {"type": "line", "strokeWidth": 1.8, "clip": True}}]
    last = f", now {rows[-1]['value']:.2g}" if rows else ""
    return {"spec": spec, "data": {"rows": rows}, "label": f"Training loss over the epochs{last}"}


def recall_curve(points: Rows, epochs: int) -> dict[str, Any]:
    """Key-token recall after each epoch of stage 1."""
    rows = [{"at": _at(p), "value": p["value"], **_stage(p)} for p in points]
    y = {"scale": {"domain": [0, 1]}, "axis": {"format": ".0%", "values": [0, 0.25, 0.5, 0.75, 1]}}
    spec = _live_spec("Key-token recall", epochs, y)
    spec["encoding"]["color"]["legend"] = None
    spec["layer"] = [
        {"name": "line", "mark": {"type": "line", "strokeWidth": 2}},
        {"name": "dots", "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1}},
    ]
    last = f", now {rows[-1]['value']:.0%}" if rows else ""
    return {"spec": spec, "data": {"rows": rows}, "label": f"Key-token recall after each epoch{last}"}


def _at(point: dict[str, Any]) -> float:
    kind, _, start = point["stage"].partition("@")
    return point["epoch"] + (int(start) if kind == "stage2" and start.isdigit() else 0)


def _stage(point: dict[str, Any]) -> dict[str, str]:
    kind = point["stage"].partition("@")[0]
    named = {"stage1": "Stage 1: memorise", "stage2": "Stage 2: generalise"}.get(kind, kind)
    return {"stage": named, "branch": point["stage"]}


def _live_spec(title: str, epochs: int, y: dict[str, Any]) -> dict[str, Any]:
    return base_spec(
        width="container",
        height=170,
        usermeta={"labelWidth": 62},
        data={"name": "rows"},
        encoding={
            "x": {
                "field": "at",
                "type": "quantitative",
                "title": "Epoch",
                "scale": {"domainMin": 0, "domainMax": epochs, "nice": False},
                "axis": {"grid": False, "tickMinStep": 1, "format": "d"},
            },
            "y": {"field": "value", "type": "quantitative", "title": title, **y},
            "detail": {"field": "branch"},
            "color": {
                "field": "stage",
                "type": "nominal",
                "title": None,
                "scale": {
                    "domain": ["Stage 1: memorise", "Stage 2: generalise"],
                    "range": ["$chart-memorised", "$chart-generalised"],
                },
            },
            "tooltip": [
                {"field": "stage", "title": "Stage"},
                {"field": "at", "title": "Epoch", "format": ".2~f"},
                {"field": "value", "title": title, "format": ".3~f"},
            ],
        },
    )
