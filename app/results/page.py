"""The Results page: what came out of one run, from one sentence down to every single answer."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.results import figures as fig
from app.results.answer_map import AnswerMap
from app.results.answer_table import answer_table_section
from app.results.charts import compare_chart, curve_chart
from app.results.departures import departures
from app.shared.frame import QUIET, offered, told_by
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.run_actions import carry_out
from app.shared.run_rows import row_of
from app.shared.vega import vega_chart
from app.shared.words import FACTS, METRIC_HELP, METRICS
from storage.measurements import list_results
from storage.runs import count_runs, list_runs

TICK_SECONDS = 2
CHOSEN_FROM = 50
ADDRESS = "(metric, facts, epoch) => roteLab.setAddress({metric, facts, epoch})"
Shown = tuple[Any, ...]


def results_page(lab: Lab) -> None:
    """Build the page; the address says which run (`?run=ID`) and what is shown of it."""
    head = gr.HTML(
        js_on_load="roteLab.actions(element, trigger, 'act');", apply_default_css=False, elem_classes="lab-html"
    )
    with gr.Column(visible=False) as body:
        figures_section(lab)
        answers = AnswerMap(lab)
        answers.connect(answer_table_section(lab))
    timer = gr.Timer(TICK_SECONDS)

    def show(request: gr.Request) -> tuple[str, Any, Any]:
        return results_head(lab, request.query_params.get("run"))

    def act(event: gr.EventData, request: gr.Request) -> tuple[str, Any, Any]:
        carry_out(lab, str(told_by(event).get("act")), str(request.query_params.get("run")))
        return show(request)

    outputs = [head, body, timer]
    gr.on(None, show, outputs=outputs, **QUIET)
    timer.tick(show, outputs=outputs, **QUIET)
    head.act(act, outputs=outputs, **QUIET)


def results_head(lab: Lab, run_id: str | None) -> tuple[str, Any, Any]:
    """The head of the page, whether there is more to see, and whether to go on looking."""
    run = lab.run(run_id)
    if run is None:
        return chooser(lab, run_id), gr.Column(visible=False), gr.Timer(active=False)
    found = fig.Figures(run, list_results(lab.db, run.id))
    sentences = fig.headline_sentences(found)
    html = render(
        "results/head.html",
        row=row_of(run, bool(lab.workers_alive())),
        sentences=sentences,
        embedded=run.model == "embedded",
        departures=departures(found),
    )
    return html, gr.Column(visible=bool(found.rows)), gr.Timer(active=not run.ended)


def chooser(lab: Lab, asked: str | None) -> str:
    """The runs whose results can be looked at."""
    workers = bool(lab.workers_alive())
    runs = [r for r in list_runs(lab.db, limit=CHOSEN_FROM) if r.started_at]
    rows = [row_of(run, workers) for run in runs]
    return render("results/choose.html", rows=rows, asked=asked, more=count_runs(lab.db) > CHOSEN_FROM)


def figures_section(lab: Lab) -> None:
    """Accuracy by split, language and checkpoint, and the learning curve, each as chart and as table."""
    gr.HTML(render("results/figures.html"), apply_default_css=False, elem_classes="lab-html")
    with gr.Row(elem_classes="choosers"):
        metric = gr.Radio(
            [(v, k) for k, v in METRICS.items()], value=fig.MAIN, label="What is measured", scale=1, min_width=735
        )
        facts = gr.Radio(
            [("Held out", "held_out"), ("Trained", "trained")], value="held_out", label="Facts", scale=1, min_width=240
        )
        epoch = offered(gr.Dropdown([], label="Stage 1 epochs", scale=1, filterable=False, min_width=130))
    note = gr.HTML(apply_default_css=False, elem_classes="lab-html")
    with gr.Column(elem_classes="lab-panel"):
        compare = vega_chart()
        compare_table = gr.HTML(apply_default_css=False, elem_classes="lab-html")
    gr.HTML(render("results/curve.html"), apply_default_css=False, elem_classes="lab-html")
    with gr.Column(elem_classes="lab-panel"):
        curve = vega_chart()
        curve_table = gr.HTML(apply_default_css=False, elem_classes="lab-html")
    seen = gr.State(-1)
    timer = gr.Timer(TICK_SECONDS)
    drawn = [note, compare, compare_table, curve, curve_table]

    def draw(metric: str | None, facts: str | None, epoch: int | None, request: gr.Request) -> Shown:
        return draw_figures(load(lab, request), metric or fig.MAIN, facts or "held_out", epoch)

    def open_page(request: gr.Request) -> Shown:
        found, asked = load(lab, request), request.query_params
        present = found.metrics if found else []
        metric = asked["metric"] if asked.get("metric") in present else fig.MAIN
        facts = asked["facts"] if asked.get("facts") in FACTS else "held_out"
        epochs = found.epochs if found else []
        wanted = int(asked["epoch"]) if asked.get("epoch", "").isdecimal() else 0
        epoch = wanted if wanted in epochs else (epochs[-1] if epochs else None)
        live = found is not None and not found.run.ended
        rest = (len(found.rows) if found else 0, gr.Timer(active=live))
        return metric, facts, gr.Dropdown(epochs, value=epoch), *draw_figures(found, metric, facts, epoch), *rest

    def tick(metric: str | None, facts: str | None, epoch: int | None, seen: int, request: gr.Request) -> Shown:
        found = load(lab, request)
        if found is None or len(found.rows) == seen:
            done = found is None or found.run.ended
            return *([gr.skip()] * (len(drawn) + 4)), gr.Timer(active=not done)
        if epoch not in found.epochs:
            epoch = found.epochs[-1] if found.epochs else None
        shown = draw_figures(found, metric or fig.MAIN, facts or "held_out", epoch)
        return gr.skip(), gr.skip(), gr.Dropdown(found.epochs, value=epoch), *shown, len(found.rows), gr.skip()

    choosers = [metric, facts, epoch]
    gr.on(None, open_page, outputs=[*choosers, *drawn, seen, timer], **QUIET)
    timer.tick(tick, [*choosers, seen], [*choosers, *drawn, seen, timer], **QUIET)
    touched = [c.input for c in (metric, facts, epoch)]
    gr.on(touched, draw, choosers, drawn, **QUIET)
    gr.on(touched, None, choosers, js=ADDRESS, **QUIET)


def load(lab: Lab, request: gr.Request) -> fig.Figures | None:
    """The figures of the run that the address names."""
    run = lab.run(request.query_params.get("run"))
    return fig.Figures(run, list_results(lab.db, run.id)) if run else None


def draw_figures(found: fig.Figures | None, metric: str, facts: str, epoch: int | None) -> Shown:
    """The note on the measure, the two charts and their tables."""
    if found is None or not found.rows:
        return "", None, "", None, ""
    depth = int(epoch or 0)
    chance = found.chance(metric)
    note = render("results/measure_note.html", help=METRIC_HELP.get(metric, ""), chance=chance, facts=facts)
    rows = fig.compared(found, metric, facts, depth)
    curve = fig.curve(found, metric, facts)
    beside = [c for c in ("base", f"memorised@{depth}", f"generalised@{depth}") if c in found.checkpoints]
    return (
        note,
        compare_chart(rows, metric, chance, found.languages) if rows else None,
        figures_table(found, metric, facts, beside),
        curve_chart(curve, metric, chance) if curve else None,
        figures_table(found, metric, facts, found.checkpoints),
    )


def figures_table(found: fig.Figures, metric: str, facts: str, checkpoints: list[str]) -> str:
    """The figures of some checkpoints as a table that folds out."""
    lines = fig.table(found, metric, facts, checkpoints)
    return render("results/figures_table.html", lines=lines, checkpoints=checkpoints, metric=metric, facts=facts)
