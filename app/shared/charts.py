"""Charts built with Altair. Colours are names of the stylesheet, such as `$chart-train`: see `app.shared.vega`.

Each public function returns `{"spec", "data", "label"}`: the Vega-Lite drawing, its rows by name, and what a screen
reader says. A drawing names its data sets and views and holds no rows, so new rows patch it in place; it is built once
for the same arguments and shared from then on, so nobody may change it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec

import altair as alt

from storage.checkpoints import CheckpointName

STAGES = {"stage1": "Stage 1: memorise", "stage2": "Stage 2: generalise", "replay": "Replayed text"}
STAGE_COLOURS = {"stage1": "$chart-memorised", "stage2": "$chart-generalised", "replay": "$chart-base"}
QUARTERS = [0, 0.25, 0.5, 0.75, 1]

Rows = list[dict[str, Any]]
AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart
Asked = ParamSpec("Asked")

_building = threading.Lock()


def one_at_a_time(build: Callable[Asked, dict[str, Any]]) -> Callable[Asked, dict[str, Any]]:
    """Altair's `.title(…)`, `.scale(…)` and so on mix up charts that are built in two threads at once."""

    @wraps(build)
    def alone(*args: Asked.args, **settings: Asked.kwargs) -> dict[str, Any]:
        with _building:
            return build(*args, **settings)

    return alone


def finished(chart: AnyChart) -> dict[str, Any]:
    """The Vega-Lite specification of a chart, with the look of every chart."""
    muted, size = "$chart-muted", 12
    text: dict[str, Any] = {"labelColor": muted, "titleColor": muted, "labelFontSize": size, "titleFontSize": size}
    looks = chart.configure(
        background="transparent",
        font="IBM Plex Sans, system-ui, sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            **text,
            titleFontWeight="normal",
            gridColor="$chart-grid",
            domain=False,
            ticks=False,
            labelPadding=6,
            titlePadding=8,
        ),
        legend=alt.LegendConfig(
            **text,
            titleFontWeight="normal",
            orient="top",
            symbolSize=90,
            columnPadding=18,
            symbolOpacity=1,
        ),
        header=alt.HeaderConfig(
            labelColor="$chart-ink",
            titleColor=muted,
            labelFontSize=13,
            labelFontWeight="bold",
            labelAnchor="start",
        ),
        title=alt.TitleConfig(color="$chart-ink", fontSize=14, anchor="start", offset=10, subtitleColor=muted),
    )
    return looks.to_dict()


def loss_curve(points: Rows, epochs: int, replayed: Rows | None = None) -> dict[str, Any]:
    """The training loss over the epochs of stage 1; each stage 2 branches off at the epoch it starts from.

    `replayed`: the loss of the text that is replayed beside the facts, as a line of its own.
    """
    last = f", now {points[-1]['value']:.2g}" if points else ""
    chart = _live_chart(
        _loss_spec(epochs, bool(replayed)), points, f"Training loss in nats per token over the epochs{last}"
    )
    if replayed:
        chart["label"] += f"; of the replayed text {replayed[-1]['value']:.2g}"
        rows = _live_chart({}, replayed, "")["data"]["rows"]
        chart["data"]["rows"] += [
            row | {"stage": STAGES["replay"], "branch": f"{row['branch']} replay"} for row in rows
        ]
    return chart


def recall_curve(points: Rows, epochs: int) -> dict[str, Any]:
    """Key-token recall after each epoch of stage 1."""
    last = f", now {points[-1]['value']:.0%}" if points else ""
    return _live_chart(_recall_spec(epochs), points, f"Key-token recall after each epoch{last}")


def _live_chart(spec: dict[str, Any], points: Rows, label: str) -> dict[str, Any]:
    rows = []
    for point in points:
        stage = CheckpointName.parse(point["stage"])
        rows.append(
            {"at": point["epoch"] + stage.epoch, "value": point["value"],
             "stage": STAGES.get(stage.kind, stage.kind), "branch": point["stage"]}
        )  # fmt: skip
    return {"spec": spec, "data": {"rows": rows}, "label": label}


def share_tips(title: str, answers: str, form: str = ".1%") -> list[alt.Tooltip]:
    """What a mark says of its share: value, interval, and how many `answers` it is made of.

    form: how numbers are written (d3-format), for what is no share.
    """
    return [
        alt.Tooltip("value:Q").title(title).format(form),
        alt.Tooltip("low:Q").title("95 % interval from").format(form),
        alt.Tooltip("high:Q").title("to").format(form),
        alt.Tooltip("n:Q").title(answers),
    ]


@one_at_a_time
@lru_cache(maxsize=64)
def _loss_spec(epochs: int, replay: bool) -> dict[str, Any]:
    y = alt.Y("value:Q").title("Loss").scale(zero=True).axis(tickCount=4)
    value = alt.Tooltip("value:Q").title("Loss (nats per token)").format(".3~f")
    base = _live(epochs, ["stage1", "stage2", *["replay"] * replay], y, value)
    line = base.mark_line(strokeWidth=1.8, clip=True).properties(name="line")
    return _live_spec("Training loss (nats per token)", line)


@one_at_a_time
@lru_cache(maxsize=64)
def _recall_spec(epochs: int) -> dict[str, Any]:
    y = alt.Y("value:Q").title("Facts completed").scale(domain=[0, 1]).axis(format=".0%", values=QUARTERS)
    value = alt.Tooltip("value:Q").title("Key-token recall").format(".1~%")
    base = _live(epochs, ["stage1"], y, value)
    line = base.mark_line(strokeWidth=2).properties(name="line")
    dots = base.mark_point(filled=True, size=36, opacity=1).properties(name="dots")
    return _live_spec("Key-token recall (% of facts)", line, dots)


def _live(epochs: int, stages: list[str], y: alt.Y, value: alt.Tooltip) -> alt.Chart:
    """What the layers of a live chart share: the epochs across, a line for each branch, a colour for each stage."""
    colours = alt.Scale(domain=[STAGES[s] for s in stages], range=[STAGE_COLOURS[s] for s in stages])
    return alt.Chart().encode(
        x=alt.X("at:Q")
        .title("Epoch")
        .scale(domainMin=0, domainMax=epochs, nice=False)
        .axis(grid=False, tickMinStep=1, format="d"),
        y=y,
        detail=alt.Detail("branch:N"),
        color=alt.Color("stage:N").title(None).scale(colours).legend(symbolSize=60),
        tooltip=[alt.Tooltip("stage:N").title("Stage"), alt.Tooltip("at:Q").title("Epoch").format(".2~f"), value],
    )


def _live_spec(title: str, *layers: alt.Chart) -> dict[str, Any]:
    chart = alt.layer(*layers, data=alt.NamedData(name="rows")).properties(
        title=title, width="container", height=170, usermeta={"labelWidth": 62}
    )
    return finished(chart)
