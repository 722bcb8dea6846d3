"""The charts are valid Vega-Lite, in every form, and can be drawn without a browser."""

from __future__ import annotations

from typing import Any

import altair
import pytest

from app.answer_map import MOST_CELLS, prompt_entries, sampled
from app.charts import loss_curve, recall_curve
from app.result_charts import compare_chart, curve_chart, map_chart
from app.static_charts import light_colours, svg

POINT = {"stage": "stage1", "step": 5, "epoch": 1.0, "value": 0.5}
DRAWN = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "n_facts": 5, "checkpoint": "base model"}
COMPARED = [DRAWN | {"split": "Train prompts", "language": "English", "model": "Base model"}]
CURVE = [DRAWN | {"split": "Train prompts", "epoch": e, "panel": "Before stage 2"} for e in (0, 3)]
CELLS = [{"f": 1, "p": 1, "hit": "✓ hit", "value": 0.5, "pick": "1/1"}]
FACTS = [{"f": 1, "subject": "<b>A</b>", "object": "B", "group": "Trained"}]
PROMPTS = [{"p": 1, "text": "Who is …?", "short": "Who is …?", "split": "Train prompts"}]
CHARTS = {
    "loss": loss_curve([POINT, POINT | {"stage": "stage2@3"}], 20),
    "recall": recall_curve([POINT], 20),
    "compare": compare_chart(COMPARED, "choice_accuracy", 0.01, ["en"]),
    "curve": curve_chart(CURVE, "generation_accuracy", None),
    "map": map_chart(CELLS, FACTS, PROMPTS, "hit"),
    "map of probabilities": map_chart(CELLS, FACTS, PROMPTS, "probability"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_the_specification_is_valid(name: str) -> None:
    chart = CHARTS[name]
    altair.Chart.from_dict({**chart["spec"], "datasets": chart["data"]})
    assert chart["label"]


@pytest.mark.parametrize("name", ["compare", "curve"])
def test_a_report_draws_without_a_browser(name: str) -> None:
    drawing = svg(CHARTS[name])
    assert drawing.startswith("<svg")
    assert "$chart" not in drawing


def test_every_colour_of_a_chart_is_in_the_stylesheet() -> None:
    def names(part: Any) -> set[str]:
        if isinstance(part, str):
            return {part[1:]} if part.startswith("$chart") else set()
        parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
        return set().union(*(names(p) for p in parts)) if parts else set()

    for chart in CHARTS.values():
        assert names(chart["spec"]) <= set(light_colours())


def test_a_large_map_is_thinned_evenly() -> None:
    kept = sampled(list(range(1000)), 50)
    assert len(kept) * 50 <= MOST_CELLS
    assert {0, max(kept)} <= kept
    assert max(kept) > 900
    assert sampled([], 0) == set()


def test_labels_of_prompts_are_short_and_distinct() -> None:
    text = "{subject}'s mother, as far as anybody in the whole wide world can tell, is"
    entries = prompt_entries([{"id": i, "text": text, "about": None, "split": "test"} for i in (1, 2)])
    assert entries[0]["short"] != entries[1]["short"]
    assert all(len(e["short"].strip()) <= 46 for e in entries)
