"""The form for a study of one's own: its description as text, what it would run, and its start."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.shared.frame import html
from app.shared.lab import Lab
from app.shared.render import duration, part
from engine.execution.studies.queue import queue_study
from engine.studies.cost import study_cost
from engine.studies.plan import planned_runs
from engine.studies.study import Study

MOST_CHARACTERS = 200_000
# Writing out thousands of experiments takes the better part of a minute: nobody waits for that while typing.
MOST_TOLD = 300
EXAMPLE = """\
name: how many prompts
experiment: quick
axes:
  seed: [0, 1, 2]
  stage2.prompts: [1, 5, 10]
"""


@dataclass(frozen=True)
class StudyForm:
    """The form's components."""

    text: gr.Textbox
    tell: gr.Button
    start: gr.Button
    told: gr.HTML


def study_form() -> StudyForm:
    """Build the form, folded."""
    with gr.Accordion("A study of my own", open=False, elem_classes="for-runners"):
        text = gr.Textbox(
            EXAMPLE,
            label="Its description (YAML)",
            info="Any field of the experiment can be an axis, by its path. docs/studies.md has them all.",
            lines=8,
            max_lines=24,
            max_length=MOST_CHARACTERS,
        )
        with gr.Row(elem_classes="quiet-row"):
            tell = gr.Button("Say what it would run", size="sm", scale=0, min_width=190)
            start = gr.Button("Start it in the background", size="sm", variant="primary", scale=0, min_width=210)
        told = html()
    return StudyForm(text, tell, start, told)


def tell_study(text: str | None) -> str:
    """What the described study would run, or what is wrong with it, as HTML."""
    try:
        study = Study.from_text(text or "")
        if study.most_runs > MOST_TOLD:
            return part("studies/plan", count=study.most_runs, cost=None, time="", runs=[], more=0)
        planned = planned_runs(study)
    except ValueError as error:
        return part("studies/problem", words=str(error))
    cost = study_cost(planned, study.keeps)
    time = ""
    if cost.seconds:
        least, middle, most = map(duration, cost.seconds)
        time = f"about {middle} ({least} to {most})"
    shown = [(run.at, run.experiment.branch_epochs) for run in planned[:12]]
    return part("studies/plan", count=cost.runs, cost=cost, time=time, runs=shown, more=len(planned) - len(shown))


def start_study(lab: Lab, text: str | None) -> str:
    """Queue the described study; returns its id. Raises ValueError with a sentence."""
    return queue_study(lab.db, Study.from_text(text or ""))
