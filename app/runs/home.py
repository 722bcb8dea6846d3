"""The first page: what the lab is in one sentence, the run that is going on now, and the way to a new experiment."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.runs.live import TICK_SECONDS, curve_pair, curves, run_head
from app.shared.frame import QUIET, told_by
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.run_actions import carry_out
from app.shared.run_rows import row_of
from storage.runs import list_runs

RECENT = 6


def home_page(lab: Lab) -> None:
    """Build the page."""
    gr.HTML(render("runs/home.html"), apply_default_css=False, elem_classes="lab-html")
    act = "roteLab.actions(element, trigger, 'act');"
    with gr.Column(elem_classes="spotlight"):
        head = gr.HTML(js_on_load=act, apply_default_css=False, elem_classes="lab-html")
        loss, recall = curve_pair()
    recent = gr.HTML(js_on_load=act, apply_default_css=False, elem_classes="lab-html")

    def show() -> tuple[str, dict[str, Any] | None, dict[str, Any] | None, str]:
        run = lab.run(found.id) if (found := lab.spotlight()) else None
        if run is None:
            return render("runs/home_empty.html"), None, None, ""
        workers = bool(lab.workers_alive())
        rows = [row_of(r, workers) for r in list_runs(lab.db, limit=RECENT)]
        return run_head(lab, run, linked=True), *curves(lab, run), render("runs/recent.html", rows=rows)

    def act_on(event: gr.EventData) -> tuple[str, dict[str, Any] | None, dict[str, Any] | None, str]:
        carry_out(lab, str(told_by(event).get("act")), str(told_by(event).get("run")))
        return show()

    outputs = [head, loss, recall, recent]
    gr.on(None, show, outputs=outputs, **QUIET)
    gr.Timer(TICK_SECONDS).tick(show, outputs=outputs, **QUIET)
    for list_of_runs in (head, recent):
        list_of_runs.act(act_on, outputs=outputs, **QUIET)
