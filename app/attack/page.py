"""The Attack page: a story that one person can present, the measurements behind it, and a form to start an attack.

What it shows is a `View` that lives in the address. Everything is drawn from stored rows and answers; only the panel
“Ask live” puts questions to models, through the asker. Each part is sent anew only when it would look different.
"""

from __future__ import annotations

import json
import time
from typing import Any

import gradio as gr

from app.asking.asker import Asker
from app.attack.actions import REBUILDING, act_on
from app.attack.figures import Attacks, Measured
from app.attack.form import form_html
from app.attack.grid import drawer_html, grid_html
from app.attack.live import answers_html, live_html
from app.attack.progress import busy_words
from app.attack.story import base_title, step_of
from app.attack.view import STEPS, Problem, View, wrong_attack
from app.server.first_start import made_at_first_start
from app.shared.frame import QUIET, html, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.vega import vega_chart
from app.shared.view import noted, sign_of
from app.shared.words import sentence
from engine.serving.asking.questions import AskError
from storage.askings import list_columns
from storage.attacks import Attack, count_attacks, get_attack, list_attacks, list_cells
from storage.runs import State

BUSY_SECONDS = 1.0
IDLE_SECONDS = 4.0
STORY_MINUTES = 3
STORY_CELLS = 22
LISTED = 50
HEAD = (
    '<link rel="stylesheet" href="/lab/ask.css"><link rel="stylesheet" href="/lab/attack.css">'
    '<script src="/lab/ask.js"></script><script src="/lab/attack.js"></script>'
)
ACT = "roteLabAttack.part(element, trigger, watch, 'act');"
PARTS = ("top", "stage", "chart", "after", "foot", "live", "answers", "grid", "drawer")


def attack_page(lab: Lab, asker: Asker) -> None:
    """Build the page."""
    attacks = Attacks(lab)
    view = gr.Textbox(visible="hidden")
    seen = gr.Textbox(visible="hidden")
    top = html(js_on_load="roteLabAttack.top(element, trigger, watch, 'act');", head=HEAD)
    problem = html(js_on_load="roteLabAttack.done(element, watch);", head=HEAD)
    with gr.Row(elem_classes="attack-row"):
        stage = html(js_on_load=ACT, head=HEAD)
        with gr.Column(elem_classes="attack-chart"):
            chart = vega_chart()
    after, live, answers, grid, form = (html(js_on_load=ACT, head=HEAD) for _ in range(5))
    foot = html(None, "story-foot-block", js_on_load=ACT, head=HEAD)
    drawer = html(js_on_load="roteLabAttack.drawer(element, trigger, watch, 'act');", head=HEAD)
    timer = gr.Timer(IDLE_SECONDS)
    drawn = [top, stage, chart, after, foot, live, answers, grid, drawer]

    def draw(shown: View, seen: str | None = None) -> tuple[Any, ...]:
        """The parts that look different from what `seen` notes, and how soon to look again."""
        before = noted(seen)
        state = sign_of(state_of(lab, asker, shown))
        if before.get("state") == state:
            return (gr.skip(),) * (len(PARTS) + 2)
        parts, busy = parts_of(lab, attacks, asker, shown)
        now = {name: sign_of(parts[name]) for name in PARTS} | {"state": state}
        sent = [parts[name] if before.get(name) != now[name] else gr.skip() for name in PARTS]
        return json.dumps(now), *sent, gr.Timer(BUSY_SECONDS if busy else IDLE_SECONDS)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        parameters = request.query_params
        shown = opened(lab, View.of_address(parameters).but(missing=wrong_attack(parameters)))
        return shown.model_dump_json(), *draw(shown), "", form_html(lab, shown)

    def act(event: gr.EventData, text: str | None, seen: str | None) -> tuple[Any, ...]:
        shown, clicked = View.of_page(text), told_by(event)
        try:
            after = act_on(lab, asker, attacks, shown, clicked)
        except (Problem, AskError) as error:
            words = sentence(str(error)) if isinstance(error, AskError) else str(error)
            return gr.skip(), *([gr.skip()] * (len(PARTS) + 2)), done(clicked, words), gr.skip()
        shown = opened(lab, after)
        rebuilt = form_html(lab, shown) if shown.view == "grid" and clicked.get("act") in REBUILDING else gr.skip()
        return shown.model_dump_json(), *draw(shown, seen), done(clicked), rebuilt

    def tick(text: str | None, seen: str | None) -> tuple[Any, ...]:
        if not text:  # the page has not been opened yet: its address is not known here
            return (gr.skip(),) * (len(PARTS) + 3)
        shown = View.of_page(text)
        now = opened(lab, shown)
        return gr.skip() if now == shown else now.model_dump_json(), *draw(now, seen)

    everything = [view, seen, *drawn, timer, problem, form]
    gr.on(None, open_page, outputs=everything, **QUIET)
    for block in (top, stage, after, foot, live, answers, grid, form, drawer):
        block.act(act, [view, seen], everything, **QUIET)
    chart.pick(act, [view, seen], everything, **QUIET)
    timer.tick(tick, [view, seen], [view, seen, *drawn, timer], **QUIET)


def done(clicked: dict[str, Any], problem: str = "") -> str:
    """What was wrong with a click, if anything, and its number: the page sends the next one when it sees that."""
    number = str(clicked.get("number_of_click") or "")
    return part("attack/done", problem=problem, number=number if number.isdecimal() else "")


def opened(lab: Lab, view: View) -> View:
    """The view of an attack that is there: the one it names, else the usual one, noting what is missing."""
    if view.attack:
        try:
            get_attack(lab.db, view.attack)
        except KeyError:
            view = view.but(missing=view.attack, attack="")
        else:
            return view
    found = latest(lab)
    return view.but(attack=found.id if found else "", opened="", person=0)


def latest(lab: Lab) -> Attack | None:
    """The attack to tell when nobody named one: the newest whose main curve is measured, else the newest.

    The short one of the first start comes last: the recorded one has more of the same.
    """
    found = sorted(list_attacks(lab.db, limit=LISTED), key=lambda a: made_at_first_start(lab.home, a.id))
    for attack in found:
        main = [
            c for c in list_cells(lab.db, attack.id) if (c.cell["control"], c.cell["defence"]) == ("attack", "none")
        ]
        if main and all(c.state is State.DONE for c in main):
            return attack
    return found[0] if found else None


def state_of(lab: Lab, asker: Asker, view: View) -> str:
    """Changes whenever something of the page may look different; cheap enough for every look of every open page."""
    cells = list_cells(lab.db, view.attack) if view.attack else []
    needed = {c.needs for c in cells if c.state is State.QUEUED}
    bases = [(run.state, run.progress) for run in map(lab.run, sorted(needed)) if run]
    asked = [(c.model, c.state, c.answered) for c in list_columns(lab.db, view.asked)] if view.asked else []
    parts = [(c.run, c.state, c.progress, c.finished_at) for c in cells], bases, asked, count_attacks(lab.db)
    minute = int(time.time() // 60)  # times are told in words, such as “3 min ago”
    return f"{view.model_dump_json()} {parts} {bool(lab.workers_alive())} {asker.server.status()} {minute}"


def parts_of(lab: Lab, attacks: Attacks, asker: Asker, view: View) -> tuple[dict[str, Any], bool]:
    """Every part of the page, and whether something of it will change soon."""
    m = measured(lab, attacks, view)
    listed = list_attacks(lab.db, limit=LISTED)
    parts: dict[str, Any] = dict.fromkeys(PARTS, "") | {"chart": None}
    busy = busy_words(lab, m) if m else ""
    failed = [c for c in m.cells if c.state in (State.FAILED, State.CANCELLED)] if m else []
    parts["top"] = render(
        "attack/top.html", view=view, m=m, attacks=listed, steps=STEPS, busy=busy,
        failed=failed, address=json.dumps(view.address()), base=base_title(lab, m) if m else "",
    )  # fmt: skip
    waiting = False
    if m is None:
        if view.view != "grid":
            parts["stage"] = render("attack/first.html", minutes=STORY_MINUTES, cells=STORY_CELLS)
    elif view.view == "grid":
        parts["grid"] = grid_html(lab, m, view, listed)
    else:
        parts["stage"], parts["chart"], parts["after"] = step_of(lab, m, view)
        names = list(STEPS)
        at = names.index(view.step)
        parts["foot"] = render(
            "attack/foot.html", view=view, m=m, back=names[at - 1] if at else "",
            forth=names[at + 1] if at + 1 < len(names) else "", base=base_title(lab, m),
            first_start=made_at_first_start(lab.home, m.attack.id),
        )  # fmt: skip
        parts["live"] = live_html(lab, m, view)
        parts["answers"], waiting = answers_html(lab, asker, m, view)
    if m is not None and view.opened:
        parts["drawer"] = drawer_html(lab, m, view)
    return parts, waiting or bool(m and m.active)


def measured(lab: Lab, attacks: Attacks, view: View) -> Measured | None:
    """The view's attack as it is now."""
    try:
        return attacks.measured(view.attack) if view.attack else None
    except KeyError:
        return None
