"""The live picture of one run: its head with state and progress, and the curves drawn while it trains."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.shared import charts
from app.shared.around import around
from app.shared.lab import Lab
from app.shared.recordings import recorded_facts
from app.shared.render import render
from app.shared.run_rows import row_of
from app.shared.vega import vega_chart
from storage.measurements import list_measurements
from storage.runs import Run

TICK_SECONDS = 1
Curve = dict[str, Any] | None  # a chart, or None for one without points
CURVE_POINTS = 600


def run_head(lab: Lab, run: Run, *, linked: bool = False) -> str:
    """Name, state, progress, figures and actions of a run. `linked`: the name leads to the run's page."""
    row = row_of(run, around(lab))
    return render("runs/head.html", row=row, linked=linked, **recorded_facts(lab, run))


def curves(lab: Lab, run: Run) -> tuple[Curve, Curve]:
    """The loss and the recall curve of a run."""
    loss = list_measurements(lab.db, run.id, "loss", CURVE_POINTS)
    probe = list_measurements(lab.db, run.id, "probe", CURVE_POINTS)
    replayed = list_measurements(lab.db, run.id, "replay loss", CURVE_POINTS)
    epochs = _last_epoch(run, loss)
    return (
        charts.loss_curve(loss, epochs, replayed) if loss else None,
        charts.recall_curve(probe, epochs) if probe else None,
    )


def curve_pair() -> tuple[gr.HTML, gr.HTML]:
    """The two charts side by side."""
    with gr.Row(elem_classes="curves"):
        return vega_chart(), vega_chart()


def _last_epoch(run: Run, loss: list[dict[str, Any]]) -> int:
    """Where the axis ends: after stage 1 and the last stage 2; the points' own end if the plan does not say."""
    plan = run.experiment
    try:
        return int(plan["stage1"]["epochs"]) + int(plan["stage2"]["epochs"])
    except (KeyError, TypeError, ValueError):
        return max((int(-(-p["epoch"] // 1)) for p in loss), default=1)
