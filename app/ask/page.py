"""The Ask page: ask a run's models a fact, a text or all facts, side by side; see everything that was asked before.

The page only writes questions and reads answers; its threads (app/asking/asker.py) do the asking. What it shows is a
`View` that lives in the address, so that a reload or another person's browser shows the same without asking again.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app.ask.actions import act_on
from app.ask.form import filled_by, form_html
from app.ask.grid import drawer_of, grid_of, signature
from app.ask.view import View
from app.asking.asker import Asker
from app.asking.columns import Models, column_label, column_parts, models_of, other_models
from app.asking.submit import wait_until
from app.shared.frame import QUIET, html, told_by
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.search_box import TYPED, search_box
from app.shared.words import sentence
from engine.serving.asking.questions import AskError
from storage.askings import find_askings, get_asking, list_columns, list_questions

BUSY_SECONDS = 0.4
IDLE_SECONDS = 2.0
# What the first answers of a warm server take, so that the grid is first drawn with them.
FIRST_SECONDS = 0.3
HISTORY_ROWS = 12
# What the parts' scripts need: Gradio loads it first; what is in the site's head may come later.
HEAD = '<link rel="stylesheet" href="/lab/ask.css"><script src="/lab/ask.js"></script>'


def ask_page(lab: Lab, asker: Asker) -> None:
    """Build the page; the address says what is shown (`?run=`, `?asked=`, `?columns=`, `?answer=`)."""
    view = gr.Textbox(visible="hidden")
    seen = gr.Textbox(visible="hidden")
    form = html(js_on_load="roteLabAsk.form(element, trigger, watch, 'act');", head=HEAD)
    problem = html()
    server = html()
    grid = html(js_on_load="roteLabAsk.grid(element, trigger, watch, 'act');", head=HEAD)
    drawer = html(js_on_load="roteLabAsk.drawer(element, trigger, watch, 'act');", head=HEAD)
    html(render("ask/history_head.html"))
    search = search_box("A name, words of a prompt or of an answer")
    page = gr.Number(1, visible="hidden", precision=0)
    history = html(js_on_load="roteLab.actions(element, trigger, 'act');", head=HEAD)
    timer = gr.Timer(IDLE_SECONDS)
    drawn = [seen, grid, drawer, server, timer]

    def draw(shown: View, asked_for: str | None = None) -> tuple[Any, ...]:
        """What is drawn of a view, or nothing new if it is as `asked_for` says."""
        words = asker.server.status().html()
        sign = f"{signature(lab, shown)} {words}"
        if sign == asked_for:
            return (gr.skip(),) * len(drawn)
        rows, busy = grid_html(lab, shown, asker)
        return sign, rows, drawer_html(lab, shown), words, gr.Timer(BUSY_SECONDS if busy else IDLE_SECONDS)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        shown = View.of_address(request.query_params)
        filled: dict[str, Any] = {}
        if shown.asked:
            shown, filled = view_of_asking(lab, shown)
        filled |= {k: request.query_params[k][:200] for k in ("subject", "relation") if k in request.query_params}
        return shown.model_dump_json(), form_html(lab, shown, filled), "", *draw(shown), history_html(lab, "", 1, shown)

    def act(event: gr.EventData, text: str | None) -> tuple[Any, ...]:
        shown = View.of_page(text)
        try:
            done = act_on(lab, asker, shown, told_by(event))
        except AskError as error:
            return *([gr.skip()] * 2), render("ask/problem.html", problem=sentence(str(error))), *([gr.skip()] * 6)
        after = done.view
        if after.asked != shown.asked and asker.server.status().state == "ready":
            wait_until(lambda: any(c.answered for c in list_columns(lab.db, after.asked)), FIRST_SECONDS)
        rebuilt = form_html(lab, after, done.form) if done.form is not None else gr.skip()
        past = history_html(lab, "", 1, after) if after.asked != shown.asked else gr.skip()
        return after.model_dump_json(), rebuilt, "", *draw(after), past

    def tick(text: str | None, sign: str | None, search: str | None, number: float | None) -> tuple[Any, ...]:
        shown = View.of_page(text)
        seen_now = draw(shown, sign or "")
        past = look_back(search, number, text) if isinstance(seen_now[0], str) else gr.skip()
        return *seen_now, past

    def look_back(search: str | None, number: float | None, text: str | None) -> str:
        return history_html(lab, search or "", int(number or 1), View.of_page(text))

    def turn_page(event: gr.EventData, search: str | None, text: str | None) -> tuple[int, str]:
        value = str(told_by(event).get("value") or "1")
        number = int(value) if value.isdecimal() and len(value) < 7 else 1
        return number, look_back(search, number, text)

    everything = [view, form, problem, *drawn, history]
    gr.on(None, open_page, outputs=everything, **QUIET)
    for part in (form, grid, drawer):
        part.act(act, view, everything, **QUIET)
    timer.tick(tick, [view, seen, search, page], [*drawn, history], **QUIET)
    search.typed(lambda s, v: (1, look_back(s, 1, v)), [search, view], [page, history], **TYPED)
    history.act(turn_page, [search, view], [page, history], **QUIET)


def view_of_asking(lab: Lab, view: View) -> tuple[View, dict[str, Any]]:
    """The view of a kept asking, and what the form holds to ask it again; without it when there is none."""
    try:
        asking = get_asking(lab.db, view.asked)
    except KeyError:
        return view, {}
    question = list_questions(lab.db, asking.id, 1)[0]
    return view.but(run=asking.run, mode=asking.kind), filled_by(asking, question, asking.kind)


def grid_html(lab: Lab, view: View, asker: Asker) -> tuple[str, bool]:
    """The grid of a view, and whether answers are still to come."""
    grid = grid_of(lab, view) if view.asked else None
    if grid is None:
        return render("ask/gone.html" if view.asked else "ask/blank.html", address=json.dumps(view.address())), False
    shown = tuple(c["model"] for c in grid["columns"])
    run = lab.run(grid["asking"].run)
    models = models_of(lab, run) if run else Models(())
    others = other_models(lab, run) if run else []
    groups = [("This run", models.names), *((f"{other.name[:40]} · {other.id}", kept) for other, kept in others)]
    drawn = render(
        "ask/grid.html",
        grid=grid,
        address=json.dumps(view.but(columns=shown).address() if view.columns else view.address()),
        # The models that can be added as columns, by run: (model, label).
        offers=[
            (name, [(m, column_label(m, column_parts(m)[0], "").capitalize()) for m in names if m not in shown])
            for name, names in groups
            if set(names) - set(shown)
        ],
        swap="stages" if shown == models.stages else "epochs" if shown == models.epochs else "",
        wait="" if asker.server.status().state == "ready" else "waiting for the model server",
    )
    return drawn, grid["busy"]


def drawer_html(lab: Lab, view: View) -> str:
    """The opened answer, or nothing."""
    drawer = drawer_of(lab, view)
    return render("ask/drawer.html", d=drawer) if drawer else ""


def history_html(lab: Lab, search: str, number: int, view: View) -> str:
    """What was asked before, newest first."""
    search = search[:200]
    rows, total = find_askings(lab.db, search, HISTORY_ROWS, (max(1, number) - 1) * HISTORY_ROWS)
    return render(
        "ask/history.html",
        rows=[row | {"judged": row["object"] is not None or row["kind"] == "facts"} for row in rows],
        total=total,
        number=max(1, number),
        pages=max(1, -(-total // HISTORY_ROWS)),
        search=search.strip(),
        here=view.asked,
        names=lab.names(),
    )
