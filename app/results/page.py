"""The Results page: what came out of one run, from one sentence down to every single answer."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.results import figures as fig
from app.results.answer_map import answer_map_section
from app.results.answer_table import answer_table_section
from app.results.base_text import base_text_html
from app.results.charts import compare_chart, curve_chart
from app.results.departures import departures
from app.results.figures import Figures
from app.results.model_card import card_of
from app.results.representations import representations_section
from app.results.sentences import headline_sentences, sample_words
from app.shared.around import around
from app.shared.departures import otherwise_trained
from app.shared.frame import QUIET, acting_html, html, offered, run_of, told_by
from app.shared.lab import Lab
from app.shared.recordings import recorded_facts
from app.shared.render import part, render
from app.shared.run_actions import carry_out
from app.shared.run_rows import row_of
from app.shared.vega import vega_chart
from app.shared.words import FACTS, METRIC_HELP, METRICS
from engine.execution.later import learns_more
from engine.experiment import IN_CONTEXT
from storage.runs import count_runs, list_runs

TICK_SECONDS = 2
CHOSEN_FROM = 50
ADDRESS = "(metric, facts, epoch) => roteLab.setAddress({metric, facts, epoch})"
Shown = tuple[Any, ...]


def results_page(lab: Lab) -> None:
    """Build the page; the address says which run (`?run=ID`) and what is shown of it."""
    head = acting_html()
    with gr.Column(visible=False) as body:
        figures_section(lab)
        knew = html()
        representations_section(lab)
        answer_table_section(lab, answer_map_section(lab))
    timer = gr.Timer(TICK_SECONDS)

    def draw(request: gr.Request) -> Shown:
        figures = load(lab, request)
        return *results_head(lab, request.query_params.get("run")), base_text_html(figures) if figures else ""

    def act(event: gr.EventData, request: gr.Request) -> Shown:
        carry_out(lab, str(told_by(event).get("act")), str(request.query_params.get("run")))
        return draw(request)

    outputs = [head, body, timer, knew]
    gr.on(None, draw, outputs=outputs, **QUIET)
    timer.tick(draw, outputs=outputs, **QUIET)
    head.act(act, outputs=outputs, **QUIET)


def results_head(lab: Lab, run_id: str | None) -> tuple[str, Any, Any]:
    """The head of the page, whether there is more to see, and whether to go on looking."""
    run = lab.run(run_id)
    if run is None:
        return chooser(lab, run_id), gr.Column(visible=False), gr.Timer(active=False)
    figures = Figures(run, lab.results(run))
    head = render(
        "results/head.html",
        row=row_of(run, around(lab)),
        **recorded_facts(lab, run),
        sentences=headline_sentences(figures),
        departures=departures(figures),
        card=card_of(run.model),
        otherwise=otherwise_trained(figures.run.experiment, figures.knew_the_key),
        sample=sample_words(run),
        learns_more=learns_more(run),
    )
    return head, gr.Column(visible=bool(figures.rows)), gr.Timer(active=not run.ended)


def chooser(lab: Lab, missing: str | None) -> str:
    """The runs whose results can be looked at. `missing`: the id that the address names, which no run has."""
    rest = around(lab)
    rows = [row_of(run, rest) for run in list_runs(lab.db, limit=CHOSEN_FROM) if run.started_at]
    return render("results/choose.html", rows=rows, missing=missing, more=count_runs(lab.db) > CHOSEN_FROM)


def figures_section(lab: Lab) -> None:
    """Accuracy by split, language and checkpoint, and the learning curve, each as chart and as table."""
    html(part("results/figures_head"))
    with gr.Row(elem_classes="choosers"):
        metric = gr.Radio(
            [(v, k) for k, v in METRICS.items()], value=fig.MAIN, label="What is measured", scale=1, min_width=735
        )
        facts = gr.Radio(
            [("Held out", "held_out"), ("Trained", "trained")], value="held_out", label="Facts", scale=1, min_width=240
        )
        epoch = offered(gr.Dropdown([], label="Stage 1 epochs", scale=1, filterable=False, min_width=130))
    note, twins = html(), html()
    with gr.Column(elem_classes="lab-panel"):
        compare = vega_chart()
        compare_table = html()
    with gr.Column() as depths:
        html(part("results/curve_head"))
        with gr.Column(elem_classes="lab-panel"):
            curve = vega_chart()
            curve_table = html()
    drawn_rows = gr.Number(-1, visible="hidden", precision=0)
    timer = gr.Timer(TICK_SECONDS)
    drawn = [note, twins, compare, compare_table, curve, curve_table, depths]

    def draw(metric: str | None, facts: str | None, epoch: int | None, request: gr.Request) -> Shown:
        return draw_figures(load(lab, request), metric or fig.MAIN, facts or "held_out", epoch)

    def open_page(request: gr.Request) -> Shown:
        figures, address = load(lab, request), request.query_params
        metric = address["metric"] if address.get("metric") in (figures.metrics if figures else ()) else fig.MAIN
        usual = figures.usual_facts if figures else "held_out"
        facts = address["facts"] if address.get("facts") in FACTS else usual
        epochs = figures.epochs if figures else []
        named = int(address["epoch"]) if address.get("epoch", "").isdecimal() else None
        epoch = named if named in epochs else next(reversed(epochs), None)
        live = gr.Timer(active=figures is not None and not figures.run.ended)
        shown = draw_figures(figures, metric, facts, epoch)
        return metric, facts, gr.Dropdown(epochs, value=epoch), *shown, len(figures.rows) if figures else 0, live

    def tick(metric: str | None, facts: str | None, epoch: int | None, drawn_rows: int, request: gr.Request) -> Shown:
        figures = load(lab, request)
        if figures is None or len(figures.rows) == drawn_rows:
            done = figures is None or figures.run.ended
            return *([gr.skip()] * (len(drawn) + 4)), gr.Timer(active=not done)
        epochs = figures.epochs
        epoch = epoch if epoch in epochs else next(reversed(epochs), None)
        shown = draw_figures(figures, metric or fig.MAIN, facts or "held_out", epoch)
        return gr.skip(), gr.skip(), gr.Dropdown(epochs, value=epoch), *shown, len(figures.rows), gr.skip()

    choosers = [metric, facts, epoch]
    gr.on(None, open_page, outputs=[*choosers, *drawn, drawn_rows, timer], **QUIET)
    timer.tick(tick, [*choosers, drawn_rows], [*choosers, *drawn, drawn_rows, timer], **QUIET)
    touched = [c.input for c in (metric, facts, epoch)]
    gr.on(touched, draw, choosers, drawn, **QUIET)
    gr.on(touched, None, choosers, js=ADDRESS, **QUIET)


def load(lab: Lab, request: gr.Request) -> Figures | None:
    """The figures of the run that the address names."""
    run = run_of(lab, request)
    return Figures(run, lab.results(run)) if run else None


def draw_figures(figures: Figures | None, metric: str, facts: str, epoch: int | None) -> Shown:
    """The note on the measure, what the key token said aloud changes, the two charts and their tables, and whether
    there is a second."""
    if figures is None or not figures.rows:
        return "", "", None, "", None, "", gr.skip()
    depth = int(epoch or 0)
    chance, among, chances = figures.chance(metric), figures.among(metric), figures.reasoning_chances(metric)
    rows, curve = fig.compared(figures, metric, facts, depth), fig.curve(figures, metric, facts)
    shown = ("base", IN_CONTEXT, f"memorised@{depth}", f"generalised@{depth}")
    beside = [c for c in shown if c in figures.checkpoints]
    return (
        part(
            "results/measure_note",
            help=METRIC_HELP.get(metric, ""),
            facts=facts,
            chance=chance,
            among=among,
            chances=chances,
        ),
        twins_table(figures, facts, beside) if metric in (fig.MAIN, fig.UNAIDED) else "",
        compare_chart(rows, metric, chance, figures.languages) if rows else None,
        figures_table(figures, metric, facts, beside),
        curve_chart(curve, metric, chance) if curve else None,
        figures_table(figures, metric, facts, figures.checkpoints),
        gr.Column(visible=any(figures.epochs)),  # without stage 1 there is no depth
    )


def figures_table(figures: Figures, metric: str, facts: str, checkpoints: list[str]) -> str:
    """The figures of some checkpoints as a table that folds out."""
    lines = fig.table(figures, metric, facts, checkpoints)
    return render("results/figures_table.html", lines=lines, checkpoints=checkpoints, metric=metric, facts=facts)


def twins_table(figures: Figures, facts: str, checkpoints: list[str]) -> str:
    """The generation accuracies that are others without answers that say a key token, side by side; '' for none."""
    lines = fig.twins(figures, facts, checkpoints)
    return render("results/twins.html", lines=lines, checkpoints=checkpoints) if lines else ""
