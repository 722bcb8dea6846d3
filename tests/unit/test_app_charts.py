"""The charts are valid Vega-Lite, in every form, and can be drawn without a browser."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import altair
import pytest

from app.results.answer_map import MOST_CELLS, prompt_entries, sampled
from app.results.charts import compare_chart, curve_chart, map_chart
from app.shared.charts import loss_curve, recall_curve
from app.shared.static_charts import light_colours, svg
from app.studies.charts import CHOICES, HITS, asked_chart, study_chart
from storage.answer_search import Answer

POINT = {"stage": "stage1", "step": 5, "epoch": 1.0, "value": 0.5}
DRAWN = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "n_facts": 5, "checkpoint": "base model"}
COMPARED = [DRAWN | {"split": "Train prompts", "language": "English", "model": "Base model"}]
CURVE = [DRAWN | {"split": "Train prompts", "epoch": e, "panel": "Before stage 2"} for e in (0, 3)]
CELLS = [{"f": 1, "p": 1, "hit": "✓ hit", "value": 0.5, "pick": "1/1"}]
FACTS = [{"f": 1, "subject": "<b>A</b>", "object": "B", "group": "Trained"}]
PROMPTS = [{"p": 1, "text": "Who is …?", "short": "Who is …?", "split": "Train prompts"}]
ANSWER = Answer(
    "base",
    1,
    "mother",
    "A",
    "B",
    0,
    "",
    1,
    "test",
    "en",
    "Who is {subject}?",
    None,
    "",
    "B",
    1,
    0,
    0.5,
    None,
    None,
    None,
    "B",
)
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


@pytest.mark.parametrize("name", CHARTS)
def test_a_specification_holds_no_rows_so_that_new_ones_are_put_in_place(name: str) -> None:
    """The page draws anew only when the specification changes; Altair counts up in names it makes itself."""
    chart = CHARTS[name]
    text = json.dumps(chart["spec"])
    for data in chart["data"]:
        assert f'{{"name": "{data}"}}' in text
    assert '"datasets"' not in text
    assert '"values": [{' not in text
    assert not re.search(r'"(view|param|layer|concat)_\d+', text)


def test_a_live_chart_is_built_once_and_only_its_rows_change() -> None:
    first, second = loss_curve([POINT], 20), loss_curve([POINT, POINT | {"epoch": 2.0}], 20)
    assert first["spec"] is second["spec"]
    assert [len(chart["data"]["rows"]) for chart in (first, second)] == [1, 2]
    assert loss_curve([POINT], 21)["spec"] != first["spec"]


def test_charts_built_at_once_do_not_mix() -> None:
    """Gradio calls handlers in threads, and Altair keeps what it is setting in one place for all of them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            maps = [pool.submit(map_chart, CELLS, FACTS, PROMPTS, "hit") for _ in range(6)]
            curves = [pool.submit(loss_curve, [POINT], 100 + n) for n in range(6)]
    finally:
        sys.setswitchinterval(before)
    assert all(m.result()["spec"] == CHARTS["map"]["spec"] for m in maps)
    expected = json.dumps(CHARTS["loss"]["spec"])
    for n, drawn in enumerate(curves):
        assert json.dumps(drawn.result()["spec"]).replace(f'"domainMax": {100 + n}', '"domainMax": 20') == expected


@pytest.mark.parametrize(("name", "unit"), [("loss", "nats per token"), ("recall", "% of facts")])
def test_a_live_chart_says_what_it_shows_and_in_which_unit(name: str, unit: str) -> None:
    chart = CHARTS[name]
    drawing = svg(chart | {"spec": chart["spec"] | {"width": 500}})
    assert f"({unit})" in drawing
    assert ">Epoch<" in drawing
    assert ">Stage 1: memorise<" in drawing


def test_the_line_of_chance_takes_no_room_and_no_grid_lines_away() -> None:
    plain, chance = (svg(compare_chart(COMPARED, "choice_accuracy", c, ["en"])) for c in (None, 0.2))
    height = re.compile(r'viewBox="[^"]+ (\d+)"')
    assert int(height.findall(chance)[0]) == pytest.approx(int(height.findall(plain)[0]), abs=4)
    assert plain.count("stroke-dasharray") == 0
    assert chance.count('stroke-dasharray="4,4"') == 1
    curves = [svg(curve_chart(CURVE, "choice_accuracy", c)) for c in (None, 0.2)]
    grid = light_colours()["chart-grid"]
    for without, line in ([plain, chance], curves):
        assert without.count(grid) == line.count(grid) > 0


def test_every_panel_has_the_line_of_its_own_chance() -> None:
    rows = [COMPARED[0] | {"split": split, "chance": c} for split, c in (("Train prompts", 0.01), ("Decoys", 0.25))]
    chart = svg(compare_chart(rows, "choice_accuracy", 0.01, ["en"]))
    assert chart.count('stroke-dasharray="4,4"') == 2
    drawn = [row | {"chance": c} for row, c in zip(CURVE, (0.01, 0.25), strict=True)]
    assert svg(curve_chart(drawn, "choice_accuracy", 0.01)).count('stroke-dasharray="4,4"') == 2
    at: dict[str, Any] = {"line": "rote", "value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    asked = [at | {"x": "Reversal", "chance": None}, at | {"x": "Reversal, choice", "chance": 0.02}]
    panels = svg(asked_chart([row | {"seed": None} for row in asked], "Method", [r["x"] for r in asked], ["rote"]))
    assert panels.count('stroke-dasharray="4,4"') == 1
    dashes = study_chart(asked, [], "What", "Method", [r["x"] for r in asked], ["rote"], CHOICES)
    assert dashes["data"]["chances"] == [{"x": "Reversal, choice", "chance": 0.02}] and svg(dashes)
    assert "chances" not in study_chart(asked[:1], [], "What", "Method", ["Reversal"], ["rote"], HITS)["data"]


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
    entries = prompt_entries([replace(ANSWER, prompt=i, text=text) for i in (1, 2)])
    assert entries[0]["short"] != entries[1]["short"]
    assert all(len(e["short"].strip()) <= 46 for e in entries)
