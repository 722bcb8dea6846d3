"""The charts of how a run's checkpoints represent prompts; see `app.shared.charts` for what charts have in common."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt

from app.results.charts import SPLIT_COLOURS
from app.shared.charts import Rows, finished, one_at_a_time

BEFORE, AFTER = "Before stage 2", "After stage 2"
RELATION_COLOURS = ["$chart-train", "$chart-unrelated", "$chart-test", "$chart-decoy", "$chart-harmful", "$chart-key"]
# Without a colour of their own, a legend's shapes would be black in either theme.
MUTED: dict[str, Any] = {"symbolFillColor": "$chart-muted", "symbolStrokeColor": "$chart-muted"}
SHAPES = ["cross", "circle", "square", "triangle-up"]


def cosine_chart(rows: Rows, published: Rows, title: str, lines: dict[str, str], told: str) -> dict[str, Any]:
    """A figure over the epochs of memorising, before and after stage 2, a line for each kind of prompt.

    rows: `epoch, stage, line, value, low, high, n, n_facts, checkpoint`; published: `epoch, stage, line, value`, those
    of the paper, drawn as diamonds; lines: colours by line; told: whose the published figures are.
    """
    epochs = tuple(sorted({row["epoch"] for row in [*rows, *published]}))
    return {
        "spec": _cosine_spec(title, tuple(lines.items()), epochs, told if published else ""),
        "data": {"rows": rows, "published": published},
        "label": f"{title}, by epochs of memorising, before and after stage 2; the table below has the same figures",
    }


@one_at_a_time
@lru_cache(maxsize=32)
def _cosine_spec(
    title: str, lines: tuple[tuple[str, str], ...], epochs: tuple[float, ...], told: str
) -> dict[str, Any]:
    stages = [BEFORE, AFTER, *([told] if told else [])]
    x = alt.X("epoch:Q").title("Epochs of memorising (0 is the base model)")
    x = x.axis(values=list(epochs), format="d", grid=False, labelOverlap=True)
    y = alt.Y("value:Q").title(None).scale(zero=False).axis(tickCount=5, format=".2f")
    colour = alt.Color("line:N").title(None)
    colour = colour.scale(domain=[name for name, _ in lines], range=[colour for _, colour in lines])
    shape = alt.Shape("stage:N").title(None).legend(orient="bottom", direction="horizontal", **MUTED)
    shape = shape.scale(domain=stages, range=["circle", "square", "diamond"][: len(stages)])
    dash = alt.StrokeDash("stage:N").legend(None).scale(domain=stages[:2], range=[[1, 0], [5, 4]])
    tips = [alt.Tooltip("line:N").title("Prompts"), alt.Tooltip("value:Q").title(title).format(".3f")]
    more = [
        alt.Tooltip("checkpoint:N").title("Checkpoint"), alt.Tooltip("low:Q").title("95 % interval from").format(".3f"),
        alt.Tooltip("high:Q").title("to").format(".3f"), alt.Tooltip("n:Q").title("Prompts looked at"),
        alt.Tooltip("n_facts:Q").title("Facts"),
    ]  # fmt: skip
    base = alt.Chart().encode(x=x, color=colour)
    drawn = [
        base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(y=alt.Y("low:Q").title(None), y2="high"),
        base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash),
        base.mark_point(filled=True, size=58, opacity=1).encode(y=y, shape=shape, tooltip=[*tips, *more]),
    ]
    layers = [
        chart.properties(name=name, data=alt.NamedData(name="rows"))
        for chart, name in zip(drawn, ("intervals", "lines", "dots"), strict=True)
    ]
    if told:
        said = [*tips, alt.Tooltip("stage:N").title("Source"), alt.Tooltip("checkpoint:N").title("Checkpoint")]
        paper = base.mark_point(filled=False, size=90, opacity=1, strokeWidth=1.8).encode(
            y=y, shape=shape, tooltip=said
        )
        layers.append(paper.properties(name="published", data=alt.NamedData(name="published")))
    chart = alt.layer(*layers).properties(width="container", height=250, title=title, usermeta={"labelWidth": 60})
    return finished(chart)


def picture_chart(rows: Rows, extent: tuple[float, ...], relations: list[str], splits: list[str], axes: str) -> Any:
    """A checkpoint's prompts as points: `x, y, relation, prompts, text`.

    extent: (least x, greatest x, least y, greatest y) of all checkpoints, so that points move and axes stay. axes: what
    these are, for who cannot see them. With one relation, colours tell the prompts apart.
    """
    return {
        "spec": _picture_spec(extent, tuple(relations), tuple(splits)),
        "data": {"rows": rows},
        "label": f"{len(rows)} prompts as points: {axes}; the figures above say in numbers how near they lie",
    }


@one_at_a_time
@lru_cache(maxsize=32)
def _picture_spec(extent: tuple[float, ...], relations: tuple[str, ...], splits: tuple[str, ...]) -> dict[str, Any]:
    left, right, low, high = extent
    edge_x, edge_y = 0.04 * (right - left or 1), 0.04 * (high - low or 1)
    bare = alt.Axis(labels=False, grid=True, tickCount=5)
    several = len(relations) > 1
    names = relations if several else splits
    colours = [RELATION_COLOURS[i % 6] for i in range(len(names))] if several else [SPLIT_COLOURS[s] for s in splits]
    colour = alt.Color("relation:N" if several else "prompts:N").title(None).scale(domain=list(names), range=colours)
    shape = alt.Shape("prompts:N").title(None).legend(**MUTED)
    chart = (
        alt.Chart(alt.NamedData(name="rows"))
        .mark_point(filled=True, size=46, opacity=0.75)
        .encode(
            x=alt.X("x:Q").title(None).axis(bare).scale(domain=[left - edge_x, right + edge_x], nice=False),
            y=alt.Y("y:Q").title(None).axis(bare).scale(domain=[low - edge_y, high + edge_y], nice=False),
            color=colour,
            shape=shape.scale(domain=list(splits), range=SHAPES[: len(splits)]),
            tooltip=[
                alt.Tooltip("text:N").title("Prompt"), alt.Tooltip("prompts:N").title("Kind"),
                alt.Tooltip("relation:N").title("Relation"),
            ],
        )
        .properties(width="container", height=420, name="points", usermeta={"labelWidth": 40})
    )  # fmt: skip
    return finished(chart)
