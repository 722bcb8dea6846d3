"""One run: its live state and curves, its history, its log, and exactly what is run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.runs.base_text import used_texts
from app.runs.live import TICK_SECONDS, Curve, curve_pair, curves, run_head
from app.shared.frame import QUIET, acting_html, html, run_of, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.run_actions import carry_out
from engine.experiment import Experiment
from storage.runs import Run, list_events

LOG_LINES = 60
YAML_LINES = 400


def run_page(lab: Lab) -> None:
    """Build the page; the address says which run (`?run=ID`)."""
    with gr.Column(elem_classes="spotlight"):
        head = acting_html()
        loss, recall = curve_pair()
    story = html(js_on_load="roteLab.reveal(element, watch, location.hash);")
    texts = html()
    plan = html()

    def draw(request: gr.Request) -> tuple[str, Curve, Curve, str]:
        run = run_of(lab, request)
        if run is None:
            return part("runs/no_run"), None, None, ""
        return run_head(lab, run), *curves(lab, run), story_html(lab, run)

    def open_page(request: gr.Request) -> tuple[str, Curve, Curve, str, str, str]:
        run = run_of(lab, request)
        return *draw(request), base_text_html(lab, run) if run else "", plan_html(run) if run else ""

    def act(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        click = told_by(event)
        carry_out(lab, str(click.get("act")), str(request.query_params.get("run")), str(click.get("value") or ""))
        return draw(request)

    live = [head, loss, recall, story]
    gr.on(None, open_page, outputs=[*live, texts, plan], **QUIET)
    gr.Timer(TICK_SECONDS).tick(draw, outputs=live, **QUIET)
    head.act(act, outputs=live, **QUIET)


def story_html(lab: Lab, run: Run) -> str:
    """The run's events and the end of its log."""
    return render("runs/story.html", run=run, events=list_events(lab.db, run.id), log=lab.log_tail(run.id, LOG_LINES))


def base_text_html(lab: Lab, run: Run) -> str:
    """What the base wrote for the run: how much, for what, and examples; empty for a run without such text."""
    return render("runs/base_text.html", run=run, sets=used_texts(lab.folder(run.id)))


def plan_html(run: Run) -> str:
    """What exactly is run: the experiment as YAML that is read back as it is, and on what machine."""
    lines = Experiment.from_record(run.experiment).to_yaml().splitlines()
    return render("runs/plan.html", run=run, yaml="\n".join(lines[:YAML_LINES]), more=max(0, len(lines) - YAML_LINES))
