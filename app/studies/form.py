"""The form for a study of one's own, or for one that is made wider: its description as text, what it would run, and its
start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Any

import gradio as gr

from app.shared.frame import html
from app.shared.lab import Lab
from app.shared.render import duration, part
from app.studies.grids import Grid, grid_of
from engine.execution.paces import earlier_paces
from engine.execution.studies.queue import new_runs, queue_once
from engine.studies.cost import StudyCost, cost_by_seed, study_cost
from engine.studies.plan import planned_runs
from engine.studies.presets import STUDIES
from engine.studies.study import SEED, Study
from storage.grids import would_be_new

MOST_CHARACTERS = 200_000
# Writing out thousands of experiments takes the better part of a minute: nobody waits for that while typing.
MOST_TOLD = 300
OWN = "A study of my own"
ABOUT_AXES = "Any field of the experiment can be an axis, by its path. docs/studies.md has them all."
GONE = "This study is no longer there."
SHOW = """() => {
  const form = document.getElementById("study-form");
  form?.scrollIntoView({ behavior: "smooth", block: "start" });
  form?.querySelector("textarea")?.focus({ preventScroll: true });
}"""
EXAMPLE = """\
name: how many prompts
experiment: quick
axes:
  seed: [0, 1, 2]
  stage2.prompts: [1, 5, 10]
"""


@dataclass(frozen=True)
class StudyForm:
    """The form's components. begun: what a new study begins with. widens: the id of the study or attack that is made
    wider; empty for a new one. opened: another text each time that it is to be looked at."""

    frame: gr.Accordion
    begun: gr.Dropdown
    widens: gr.Textbox
    opened: gr.Textbox
    text: gr.Textbox
    tell: gr.Button
    start: gr.Button
    add: gr.Button
    told: gr.HTML


def study_form() -> StudyForm:
    """Build the form, folded."""
    widens, opened = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    with gr.Accordion(OWN, open=False, elem_id="study-form", elem_classes="for-runners") as frame:
        begun = gr.Dropdown(
            [("A small example", ""), *((name, name) for name in STUDIES.names())],
            value="",
            label="Begin with",
            info="Those that come with the lab measure the tables of the page Paper.",
        )
        text = gr.Textbox(
            EXAMPLE,
            label="Its description (YAML)",
            info=ABOUT_AXES,
            lines=8,
            max_lines=24,
            max_length=MOST_CHARACTERS,
        )
        with gr.Row(elem_classes="quiet-row"):
            tell = gr.Button("Say what it would run", size="sm", scale=0, min_width=190)
            start = gr.Button("Start it in the background", size="sm", variant="primary", scale=0, min_width=210)
            add = gr.Button("", size="sm", variant="primary", scale=0, min_width=210, visible=False)
        told = html()
    opened.change(None, js=SHOW)
    return StudyForm(frame, begun, widens, opened, text, tell, start, add, told)


def beginning(preset: str | None) -> dict[str, Any]:
    """What becomes of the form's components when a new study is to begin with a preset, or with the example."""
    shipped = preset if preset in STUDIES.names() else ""
    text = STUDIES.text(shipped) if shipped else EXAMPLE
    return {
        "frame": gr.Accordion(OWN, open=True),
        "begun": shipped,
        "widens": "",
        "opened": token_hex(4),
        "text": gr.Textbox(text, info=ABOUT_AXES),
        "start": gr.Button("Start it in the background", variant="primary", visible=True),
        "add": gr.Button("", visible=False),
        "told": part("studies/counting"),
    }


def widening(lab: Lab, study: str) -> dict[str, Any]:
    """What becomes of the form's components when a study is to be made wider. Raises KeyError."""
    grid = grid_of(lab, study)
    name = grid.stored.name if len(grid.stored.name) <= 40 else grid.stored.name[:39] + "…"
    return {
        "frame": gr.Accordion(f"Make “{name}” wider", open=True),
        "begun": None,
        "widens": study,
        "text": gr.Textbox(_grid_first(grid), info="Add values to the grid: what is there is not run again."),
        "opened": token_hex(4),
        "start": gr.Button("Start it as a new study", variant="secondary", visible=not grid.is_attack),
        "add": gr.Button(f"Add what is new to “{name}”", visible=True),
        "told": "",
    }


def _grid_first(grid: Grid) -> str:
    """Its description, in which what can be added to comes before what is long."""
    blocks = re.split(r"^(?=[a-z_0-9]+:)", grid.yaml(), flags=re.MULTILINE)
    first = ("name", *grid.axes_fields)
    return "".join(sorted(blocks, key=lambda block: block.partition(":")[0] not in first))


def tell_study(lab: Lab, text: str | None, widens: str | None) -> str:
    """What the described study would run, or what is wrong with it, as HTML."""
    try:
        return _told_wider(lab, text or "", widens) if widens else _told(lab, text or "")
    except ValueError as error:
        return part("studies/problem", words=str(error))


def _told(lab: Lab, text: str) -> str:
    study, paces = Study.from_text(text), partial(earlier_paces, lab.db)
    planned, cost = [], None
    if study.most_runs <= MOST_TOLD:
        planned = planned_runs(study)
        cost = study_cost(planned, study.keeps, paces)
    elif study.most_runs <= MOST_TOLD * len(study.axes.get(SEED, ())):
        cost = cost_by_seed(study, paces)
    shown = [(run.at, run.experiment.branch_epochs) for run in planned[:12]]
    count = cost.runs if cost else study.most_runs
    return part("studies/plan", count=count, cost=cost, time=_time(cost), runs=shown, more=len(planned) - len(shown))


def _time(cost: StudyCost | None) -> str:
    """How long it takes and the room that it needs."""
    if cost is None or not cost.runs:
        return ""
    if not cost.seconds or not cost.disk:
        return "how long it takes is unknown, as the size of a model is"
    least, middle, most = map(duration, cost.seconds)
    basis = "by earlier runs" if cost.from_earlier_runs else "a rough guess for this machine"
    return f"about {middle} ({least} to {most}), {basis}; {cost.disk / 1e9:.1f} GB at most"


def _told_wider(lab: Lab, text: str, widens: str, queued: bool = False) -> str:
    try:
        grid = grid_of(lab, widens)
        if not queued and not grid.is_attack and (most := Study.from_text(text).most_runs) > MOST_TOLD:
            return part("studies/plan", count=most, cost=None, time="", runs=[], more=0)
        there = sum(grid.counts().values())
        time = ""
        if queued:
            new = grid.widen(text)
        elif grid.is_attack:
            new = would_be_new(lab.db, lambda: grid.widen(text))
        else:
            wider = Study.from_text(text)
            added = new_runs(lab.db, widens, wider)
            new, time = len(added), _time(study_cost(added, wider.keeps, partial(earlier_paces, lab.db)))
    except KeyError:
        raise ValueError(GONE) from None
    return part("studies/wider", study=grid.stored.name, there=there, new=new, queued=queued, time=time)


def start_study(lab: Lab, text: str | None) -> str:
    """Queue the described study, if it isn't under way; returns its id. Raises ValueError with a sentence."""
    return queue_once(lab.db, Study.from_text(text or ""))


def widen_by(lab: Lab, text: str | None, widens: str | None) -> str:
    """Queue what the description has more than the study; returns what was done. Raises ValueError with a sentence."""
    return _told_wider(lab, text or "", widens or "", queued=True)
