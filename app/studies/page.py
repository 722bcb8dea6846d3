"""The Studies page: a grid of experiments or of attacks as it fills, as a table of any two axes and as a chart."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.shared.around import around
from app.shared.frame import CHOOSERS, QUIET, acting_html, html, told_by
from app.shared.lab import Lab
from app.shared.render import duration, moment, part, render
from app.shared.vega import vega_chart
from app.shared.view import noted, sign_of
from app.studies.charts import chart_of, most_lines
from app.studies.form import GONE, beginning, start_study, study_form, tell_study, widen_by, widening
from app.studies.grids import Grid, grid_of
from app.studies.shown import shown_of
from app.studies.table import Table, waiting_for, waiting_words
from app.studies.view import ASKED, View, comparable, counted, value_name
from engine.execution.studies.kept import is_kept
from engine.execution.studies.queue import queue_shipped
from engine.studies.compare import Comparison
from engine.studies.presets import STUDIES
from storage.attacks import list_attacks
from storage.runs import ENDED, State
from storage.studies import StudyFigure, StudyRun, list_studies

BUSY_SECONDS, IDLE_SECONDS = 3.0, 20.0
LISTED = 50
MOST_COMPARED = 60
HEAD = '<link rel="stylesheet" href="/lab/studies.css">'
# What of the form changes when a study is to be made wider, or another one begun.
FORM = ("frame", "begun", "widens", "opened", "text", "start", "add", "told")
PARTS = ("top", "choosers", "chart", "table")


def studies_page(lab: Lab) -> None:
    """Build the page. Study, measure and axes live in the address."""
    view, seen = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    top = acting_html(head=HEAD)
    problem = html()
    choosers = acting_html(CHOOSERS)
    chart = vega_chart(visible=False)
    table = acting_html()
    form = study_form()
    timer = gr.Timer(IDLE_SECONDS)

    def draw(shown: View, before: str | None = None) -> tuple[Any, ...]:
        """The parts that look different from what `before` notes: what is the same keeps its focus and open lists."""
        parts, busy = parts_of(lab, shown)
        before_it, now = noted(before), {name: sign_of(parts[name]) for name in PARTS}
        sent = {name: parts[name] if before_it.get(name) != now[name] else gr.skip() for name in PARTS}
        if before_it.get("chart") != now["chart"]:
            sent["chart"] = gr.HTML(parts["chart"], visible=parts["chart"] is not None)
        return json.dumps(now), *sent.values(), gr.Timer(BUSY_SECONDS if busy else IDLE_SECONDS)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        shown = opened(lab, View.of_address(request.query_params))
        return shown.model_dump_json(), "", *draw(shown)

    def act(event: gr.EventData, text: str | None, before: str | None) -> tuple[Any, ...]:
        shown, said = View.of_page(text), ""
        try:
            shown = act_on(lab, shown, told_by(event))
        except ValueError as error:
            said = part("studies/problem", words=str(error))
        shown = opened(lab, shown)
        return shown.model_dump_json(), said, *draw(shown, before)

    def tick(text: str | None, before: str | None) -> tuple[Any, ...]:
        return draw(opened(lab, View.of_page(text)), before) if text else (gr.skip(),) * len(drawn)

    def start(text: str | None, before: str | None, described: str | None) -> tuple[Any, ...]:
        shown, said = View.of_page(text), ""
        try:
            shown = View(study=start_study(lab, described))
        except ValueError as error:
            said = part("studies/problem", words=str(error))
        shown = opened(lab, shown)
        return shown.model_dump_json(), said, *draw(shown, before)

    def tell(described: str | None, widens: str | None) -> str:
        return tell_study(lab, described, widens)

    def add(text: str | None, before: str | None, described: str | None, widens: str | None) -> tuple[Any, ...]:
        shown = View.of_page(text)
        try:
            said = widen_by(lab, described, widens)
            shown = shown if shown.study == widens else View(study=widens or "")
        except ValueError as error:
            said = part("studies/problem", words=str(error))
        shown = opened(lab, shown)
        return shown.model_dump_json(), said, *draw(shown, before)

    def write_down(event: gr.EventData, text: str | None) -> tuple[Any, ...]:
        """Into the form, what is to be made wider, or begun with."""
        clicked, changed = told_by(event), {}
        try:
            if clicked.get("act") == "widen":
                changed = widening(lab, View.of_page(text).study)
            elif clicked.get("act") == "begin":
                changed = beginning(str(clicked.get("value")))
        except KeyError:
            changed = {"told": part("studies/problem", words=GONE)}
        return tuple(changed.get(name, gr.skip()) for name in FORM)

    def tell_begun(described: str | None, widens: str | None) -> Any:
        return gr.skip() if widens else tell_study(lab, described, widens)

    def begin(preset: str | None) -> tuple[Any, ...]:
        changed = beginning(preset)
        return tuple(changed.get(name, gr.skip()) for name in FORM if name not in ("begun", "opened"))

    drawn = [seen, top, choosers, chart, table, timer]
    gr.on(None, open_page, outputs=[view, problem, *drawn], **QUIET)
    for block in (top, choosers, table):
        block.act(act, [view, seen], [view, problem, *drawn], **QUIET)
    timer.tick(tick, [view, seen], drawn, **QUIET)
    written = [getattr(form, name) for name in FORM]
    top.act(write_down, [view], written, **QUIET)
    form.opened.change(tell_begun, [form.text, form.widens], [form.told], **QUIET)
    form.begun.input(
        begin, [form.begun], [one for one in written if one not in (form.begun, form.opened)], **QUIET
    ).then(tell_begun, [form.text, form.widens], [form.told], **QUIET)
    form.tell.click(tell, [form.text, form.widens], [form.told], **QUIET)
    form.add.click(add, [view, seen, form.text, form.widens], [view, form.told, *drawn], **QUIET)
    form.start.click(start, [view, seen, form.text], [view, form.told, *drawn], **QUIET)


def opened(lab: Lab, view: View) -> View:
    """The view of a study that is there: the one it names, else the newest, noting what is missing."""
    if view.study:
        try:
            grid_of(lab, view.study)
        except KeyError:
            view = view.but(missing=view.study, study="")
        else:
            return view
    newest = list_studies(lab.db, limit=1)
    return view.but(study=newest[0].id if newest else "")


def act_on(lab: Lab, view: View, clicked: dict[str, Any]) -> View:
    """Carry out a click; returns the view after it. Raises ValueError with a sentence."""
    act, value = str(clicked.get("act")), str(clicked.get("value") or "")
    if act == "start":
        return View(study=queue_shipped(lab.db, value))
    if act == "study":
        return view.but(study=value, fixed="", missing="").cleaned()
    if act in ("rows", "columns"):
        return view.but(**{act: value}, against="").cleaned()
    if act in ("measure", "facts", "language", "against"):
        return view.but(**{act: value}).cleaned()
    if act == "fix":
        return view.with_chosen(str(clicked.get("name") or "")[:100], value[:200]).cleaned()
    if act in ("stop", "retry", "forget"):
        try:
            grid_of(lab, view.study).change(act)
        except KeyError:
            raise ValueError(GONE) from None
    return view


def parts_of(lab: Lab, view: View) -> tuple[dict[str, Any], bool]:
    """What the page is made of, by `PARTS`, and whether something of it will change soon."""
    if not view.study:
        described = ((name, STUDIES.load(name)) for name in STUDIES.names())
        presets = [(name, study.description, study.most_runs) for name, study in described]
        none = render("studies/none.html", presets=presets, missing=view.missing)
        return {"top": none, "choosers": "", "chart": None, "table": ""}, False
    grid = grid_of(lab, view.study)
    shown, study = shown_of(grid, view), grid.stored
    runs, figures, table = shown.runs, shown.figures, shown.table
    too_many = put_comparisons(grid, table, view.against)
    counts = grid.counts()
    busy = any(State(state) not in ENDED for state in counts)
    top = render(
        "studies/top.html", grid=grid, study=study, view=view, counts=counts, total=sum(counts.values()),
        done=counts.get("done", 0), busy=busy, now=now_words(lab, runs),
        failed=[run for run in runs if run.state is State.FAILED], owner=lab.names().get(study.owner or "", ""),
    )  # fmt: skip
    choosers = render(
        "studies/choosers.html", grid=grid, studies=list_studies(lab.db, limit=LISTED),
        attacks=list_attacks(lab.db, limit=LISTED), measure=grid.measure_of(view),
        address=json.dumps(view.address()), languages=shown.languages,
        asked=shown.asked, about_facts=not is_kept(grid.split_of(grid.measure_of(view))[2]),
        table=table, value_name=value_name, beside=table.columns.path == ASKED,
    )  # fmt: skip
    below = render(
        "studies/table.html", table=table, value_name=value_name, waiting_for=waiting_for, waiting_words=waiting_words,
        grid=grid, study=study, took=sum(seconds_of(runs)),
        seeds=len({seed for figure in figures for seed in figure.seeds}), total=len(runs),
        view=view, counted=counted, comparable=comparable, too_many=too_many, most_lines=most_lines(table),
        query=urlencode({k: v for k, v in view.address().items() if v and k != "study"}),
        parquet=find_spec("pyarrow") is not None,
    )  # fmt: skip
    return {"top": top, "choosers": choosers, "chart": chart_of(table), "table": below}, busy


def put_comparisons(grid: Grid, table: Table, place: str) -> int:
    """Compare the table's figures with that at a place; returns how many that would be where they are too many."""
    first = table.against(place)
    _, column = table.place(place)
    cells = [
        cell
        for (_, own), cell in table.cells.items()
        # Beside each other stand measures, of which one can't be better than another.
        if cell.figure and cell.figure is not first and (table.columns.path != ASKED or own == column)
    ]
    if first is None or not cells:
        return 0
    if len(cells) > MOST_COMPARED:
        return len(cells)
    wanted = tuple(json.dumps(vars(f), sort_keys=True) for f in (first, *(cell.figure for cell in cells)))
    for cell, compared in zip(cells, _compared(grid.lab, grid.stored.id, wanted), strict=True):
        cell.compared = compared
    return 0


@lru_cache(maxsize=16)
def _compared(lab: Lab, study: str, wanted: tuple[str, ...]) -> list[Comparison | None]:
    """Of figures as JSON, which change whenever what they are made of does."""
    first, *others = (StudyFigure(**_with_seeds(json.loads(text))) for text in wanted)
    return grid_of(lab, study).compare(first, others)


def _with_seeds(figure: dict[str, Any]) -> dict[str, Any]:
    return figure | {"seeds": {int(seed): own for seed, own in figure["seeds"].items()}}


def seconds_of(runs: list[StudyRun]) -> list[float]:
    """How long each of the runs took that are done."""
    return [
        (moment(run.finished_at) - moment(run.started_at)).total_seconds()
        for run in runs
        if run.state is State.DONE and run.started_at and run.finished_at
    ]


def now_words(lab: Lab, runs: list[StudyRun]) -> str:
    """What is run now, and how long the rest will take."""
    left = sum(run.state not in ENDED for run in runs)
    if not left:
        return ""
    running = next((run for run in runs if run.state in (State.RUNNING, State.STOPPING)), None)
    if running:
        said = str(running.progress.get("message") or "Starting")
    else:
        words = around(lab).words
        said = next((words[run.run] for run in runs if run.run in words), "Waits for its turn")
    took = seconds_of(runs)
    return f"{said} · about {duration(left * sum(took) / len(took))} left" if took else said
