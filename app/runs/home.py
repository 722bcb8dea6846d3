"""The first page: what the lab is in one sentence, what recorded runs show, the run that is going on now, and the way
to a new experiment."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.runs.evidence import evidence_html, evidence_sign
from app.runs.live import TICK_SECONDS, Curve, curve_pair, curves, run_head
from app.shared.around import around
from app.shared.frame import QUIET, acting_html, html, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.run_actions import carry_out
from app.shared.run_rows import row_of
from engine.presets import describe_preset
from storage.runs import list_runs

RECENT = 6
OFFERED = ("quick", "real")  # presets to begin with
HEAD = '<link rel="stylesheet" href="/lab/evidence.css">'
EVIDENCE_SECONDS = 3  # recordings come in the background, soon after the lab's first start
Drawn = tuple[str, Curve, Curve, str]


def home_page(lab: Lab) -> None:
    """Build the page."""
    html(render("runs/home.html", presets=[(name, describe_preset(name)) for name in OFFERED]))
    evidence, sign = html(head=HEAD), gr.Textbox(visible="hidden")
    with gr.Column(elem_classes="spotlight"):
        head = acting_html()
        loss, recall = curve_pair()
    recent = acting_html()

    def draw() -> Drawn:
        run = lab.spotlight()
        if run is None:
            return part("runs/home_empty"), None, None, ""
        rest = around(lab)
        runs = list_runs(lab.db, limit=RECENT, made_here=True, of_studies=False)
        runs = runs or list_runs(lab.db, limit=RECENT, made_here=True)
        recent = part("runs/recent", rows=[row_of(r, rest) for r in runs])
        return run_head(lab, run, linked=True), *curves(lab, run), recent

    def act(event: gr.EventData) -> Drawn:
        click = told_by(event)
        carry_out(lab, str(click.get("act")), str(click.get("run")), str(click.get("value") or ""))
        return draw()

    def look(seen: str | None) -> tuple[Any, Any]:
        there = evidence_sign(lab)
        return (gr.skip(), gr.skip()) if there == (seen or "") else (evidence_html(lab), there)

    gr.on(None, lambda: look(""), outputs=[evidence, sign], **QUIET)
    gr.Timer(EVIDENCE_SECONDS).tick(look, sign, [evidence, sign], **QUIET)
    outputs = [head, loss, recall, recent]
    gr.on(None, draw, outputs=outputs, **QUIET)
    gr.Timer(TICK_SECONDS).tick(draw, outputs=outputs, **QUIET)
    for list_of_runs in (head, recent):
        list_of_runs.act(act, outputs=outputs, **QUIET)
