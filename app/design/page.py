"""The Design page: the way from an idea to a queued run.

The draft lives in the database (`storage.drafts`), the page only shows it: each handler takes over what the fields
hold, changes the draft, and answers with what is to be seen. So a reload, a second tab or a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.design import actions
from app.design import fact_actions as facts
from app.design.form import FORM_KEYS
from app.design.hub_sizes import HubSizes
from app.design.lanes import Lanes
from app.design.models import Installer
from app.design.sections import (
    Components,
    model_section,
    preview_section,
    recipe_section,
    relation_section,
    side_panel,
    start_bar,
)
from app.design.show import Shown
from app.design.tabs import Request, Screen
from app.shared.frame import QUIET, html, told_by
from app.shared.lab import Lab
from engine.corpus.import_choices import ROLES
from storage.drafts import valid_id

Action = Callable[..., dict[str, Any]]
Reader = Callable[..., tuple[Any, ...]]

# The secret only keeps the draft's id from lying readable in the browser's storage; a fixed one lets a second visit
# read what the first one wrote.
BROWSER_KEY, BROWSER_SECRET = "rote-lab-draft", "rote-lab"
# One draft's changes come in the order in which they were made, and no draft waits for another: see `lanes`.
BESIDE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
# Requests may overtake each other: each tab counts its own.
STEP = (
    "(...values) => { values[values.length - 1] = window.designSteps = (window.designSteps || 0) + 1; return values; }"
)
# What is said of the chosen model, as `Installer.shown` answers.
KNOWN_MODEL = ("known_model", "install", "install_stop", "known_there")
# How often a page looks whether another tab changed its draft.
LOOK_SECONDS = 3
# A Textbox tells of its input only when keys are pressed (not of pasting, cutting, composing), and of its change also
# when the server made it, field by field while others are still old. So the page listens to the fields themselves.
TYPING = """
let timer = null;
const tell = () => { clearTimeout(timer); timer = null; trigger("typed"); };
const foreign = ".facts-table, .paste-panel, .question-panel, fieldset, input[type=file]";
const mine = (node) => node.closest(".design-columns") && !node.closest(foreign);
document.addEventListener("input", (event) => {
  if (!mine(event.target)) return;
  clearTimeout(timer);
  timer = setTimeout(tell, 200);
});
document.addEventListener("focusout", () => { if (timer) setTimeout(() => timer && tell(), 30); });
"""
GO_TO_RUN = "(run) => { if (run) location.assign('/run?run=' + encodeURIComponent(run)); }"
# Until they are filled the fields take no focus: what somebody typed into an empty one would be overwritten.
HOLD, FREE = (
    f"() => document.querySelectorAll('.start-bar, .design-columns').forEach((part) => {{ part.inert = {held}; }})"
    for held in ("true", "false")
)
FORGET_ASKED = "() => roteLab.setAddress({clone: '', preset: '', later: ''})"


def design_page(home: Path, sizes: HubSizes) -> None:
    """Build the page inside the current route. `sizes`: what models of the hub take to download."""
    c: Components = {}
    start_bar(c)
    with gr.Row(elem_classes="design-columns"):
        with gr.Column(scale=7, min_width=320):
            model_section(c)
            relation_section(c)
            recipe_section(c)
            preview_section(c)
        with gr.Column(scale=4, min_width=300, elem_classes="side-column"):
            side_panel(c)
    c["typing"] = html(None, "slot", js_on_load=TYPING)
    c["draft_id"] = gr.BrowserState("", storage_key=BROWSER_KEY, secret=BROWSER_SECRET)
    # In the browser, beside the fields they belong to: which relation and language those show, and where to go.
    c["editing"] = gr.Textbox(visible=False)
    c["go"] = gr.Textbox(visible=False)
    c["step"] = gr.Number(visible=False)
    c["latest"] = gr.Textbox(visible=False)
    installer = Installer(home)
    _wire(c, Shown(Lab(home), sizes), installer)
    _wire_models(c, installer, sizes)


def _wire(c: Components, shown: Shown, installer: Installer) -> None:
    names = [name for name in c if name != "draft_id"]
    outputs = [c[name] for name in names]
    form = [c["draft_id"], c["editing"], *(c[key] for key in FORM_KEYS), c["step"]]
    lanes = Lanes()

    def handler(action: Action, extra: int, read: Reader | None = None) -> Callable[..., Awaitable[list[Any]]]:
        """Give an action the draft's id, what was typed and its own inputs; turn its answer into outputs.

        `read`: what makes the action's arguments of its own inputs, and may take its time.
        """

        async def run(*values: Any) -> list[Any]:
            own, (draft_id, editing, *typed, step) = values[:extra], values[extra:]
            if not valid_id(draft_id):
                return [gr.skip()] * len(names)
            if read:
                own = await lanes.read(partial(read, *own))
            request = Request(Screen.read(draft_id, editing or ""), typed, int(step or 0))
            answer = await lanes.edit(draft_id, partial(action, shown, request, *own))
            known = dict(zip(FORM_KEYS, typed, strict=True))
            return [_update(answer, name, known) for name in names]

        return run

    def on(event: Any, action: Action, *inputs: str, read: Reader | None = None, **settings: Any) -> Any:
        own = [c[name] for name in inputs]
        run = handler(action, len(inputs), read)
        return event(run, [*own, *form], outputs, js=STEP, **{**BESIDE, **settings})

    def from_data(event: Any, action: Action, read: Reader) -> None:
        """An event whose data say what was done, such as one of the facts table."""

        async def run(event_data: gr.EventData, *values: Any) -> list[Any]:
            return await handler(action, 0, partial(read, event_data))(*values)

        event(run, form, outputs, js=STEP, trigger_mode="multiple", **BESIDE)

    async def opened(request: gr.Request, draft_id: Any) -> list[Any]:
        asked = {key: str(request.query_params.get(key, "")) for key in ("clone", "preset", "later")}
        lane = str(draft_id) if valid_id(draft_id) else ""
        answer = await lanes.edit(lane, partial(actions.open_page, shown, draft_id, **asked))
        # With the rest, since what comes later moves what somebody is about to click. That it is there is told later:
        # it raises an edit, which must not come before the fields are filled.
        seen = zip(KNOWN_MODEL, installer.shown(answer["model_kind"]), strict=True)
        answer |= {name: update for name, update in seen if name != "known_there"}
        return [answer["draft_id"], *(answer.get(name, gr.skip()) for name in names)]

    def look(draft_id: Any, editing: Any) -> Any:
        latest = actions.look(shown, draft_id, editing or "") if valid_id(draft_id) else None
        return gr.skip() if latest is None else str(latest)

    # With inputs of its own, `gr.on(None, …)` would run again whenever they change.
    loaded = gr.on(None, None, js=HOLD, **QUIET).then(opened, c["draft_id"], [c["draft_id"], *outputs], **BESIDE)
    loaded.then(None, js=FREE, **QUIET)
    loaded.then(None, js=FORGET_ASKED, **QUIET)

    on(c["typing"].typed, actions.edit, trigger_mode="always_last")
    chosen = [c[key].input for key in FORM_KEYS if isinstance(c[key], gr.Dropdown | gr.Radio)]
    on(partial(gr.on, chosen), actions.edit, trigger_mode="always_last")
    gr.Timer(LOOK_SECONDS).tick(look, [c["draft_id"], c["editing"]], c["latest"], **QUIET)
    on(c["latest"].change, actions.edit, trigger_mode="always_last")
    # A model has come, so that nothing is left to mend; or the hub has told its size.
    on(c["known_there"].change, actions.edit, trigger_mode="always_last")

    on(c["picker"].input, actions.pick, "picker")
    on(c["language"].input, actions.pick_language, "language")
    on(c["paper_model"].input, actions.pick_paper_model, "paper_model")
    on(c["add_corpus"].input, actions.add_corpus, "add_corpus")
    on(c["add_own"].click, actions.add_own, trigger_mode="once")
    on(c["remove"].click, actions.remove, trigger_mode="once")
    from_data(c["table"].rows, facts.table_rows, facts.read_rows)
    from_data(c["table"].paste_rows, facts.table_paste, facts.read_pasted_rows)
    busy = {"trigger_mode": "once", "show_progress": "minimal"}
    on(c["upload"].upload, facts.take_file, "upload", read=facts.read_upload, **busy)
    for button, replace in (("paste_add", False), ("paste_replace", True)):
        read = partial(facts.read_paste, replace=replace)
        on(c[button].click, facts.take_file, "paste_text", read=read, **busy)
    _wire_questions(c, on, busy)
    on(c["import_keep"].click, facts.keep_rows, trigger_mode="once")
    on(c["import_drop"].click, facts.leave_out_rows, trigger_mode="once")
    on(c["clear"].click, facts.clear_facts, trigger_mode="once")
    on(c["copy_generated"].click, facts.copy_generated, trigger_mode="once")

    on(c["preset"].input, actions.load_preset, "preset")
    on(c["earlier"].input, actions.load_run, "earlier")
    on(c["file_load"].click, actions.load_description, "file_text", read=actions.read_description, **busy)
    on(c["file_upload"].upload, actions.load_description, "file_upload", read=actions.read_description_file, **busy)
    on(c["start_over"].click, actions.start_over, trigger_mode="once")
    on(c["undo"].click, actions.undo, trigger_mode="once")

    c["from_file"].click(lambda: gr.update(visible=True), None, c["file_panel"], **QUIET)
    c["file_close"].click(lambda: gr.update(visible=False), None, c["file_panel"], **QUIET)
    c["paste_open"].click(lambda: gr.update(visible=True), None, c["paste_panel"], **QUIET)

    from_data(c["summary"].act, actions.make_shorter, lambda event: (str(told_by(event).get("value")),))
    on(c["yaml_panel"].expand, actions.show_yaml)
    on(c["start"].click, actions.start, trigger_mode="once").then(None, c["go"], js=GO_TO_RUN, **QUIET)


def _wire_models(c: Components, installer: Installer, sizes: HubSizes) -> None:
    """The known models' line and buttons: a process of its own installs, the page looks how far it is, and what the hub
    has told of another model."""
    shown, chosen = [c[name] for name in KNOWN_MODEL], [c["model_kind"], c["model_name"]]
    last: dict[str, Any] = {"outputs": shown, **QUIET}

    def look(kind: Any, name: Any) -> tuple[Any, ...]:
        *of_known, there = installer.shown(kind)
        return *of_known, there or sizes.look(str(name or "").strip())

    def after(act: Callable[[str], None]) -> Callable[[Any, Any], tuple[Any, ...]]:
        def run(kind: Any, name: Any) -> tuple[Any, ...]:
            act(str(kind))
            return look(kind, name)

        return run

    c["model_kind"].change(look, chosen, **last)
    c["install"].click(after(installer.start), chosen, trigger_mode="once", **last)
    c["install_stop"].click(after(installer.stop), chosen, trigger_mode="once", **last)
    gr.Timer(LOOK_SECONDS).tick(look, chosen, **last)


def _wire_questions(c: Components, on: Callable[..., Any], busy: dict[str, Any]) -> None:
    """What is asked of a file: it is read again by each answer, and taken when there is nothing more to ask."""
    columns = [f"question_{role}" for role in ROLES]
    answers = ["question_about", "upload", "paste_text", "question_choice", *columns]
    chosen = [c[name].input for name in ("question_choice", *columns)]
    look, take = facts.look_by_answers, facts.take_file
    on(partial(gr.on, chosen), look, *answers, read=facts.read_by_answers, **busy | {"trigger_mode": "always_last"})
    on(c["question_take"].click, take, *answers, read=facts.read_by_answers, **busy)
    on(c["question_drop"].click, facts.drop_question, trigger_mode="once")


def _update(answer: dict[str, Any], name: str, known: dict[str, Any]) -> Any:
    """The update of one component. A field that shows its value already is left alone: somebody may be typing on."""
    if name not in answer:
        return gr.skip()
    value, empty = answer[name], (None, "")
    if name in known and (value == known[name] or (value in empty and known[name] in empty)):
        return gr.skip()
    return value
