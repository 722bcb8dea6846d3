"""The Design page: the way from an idea to a queued run.

The draft lives in the database (`storage.drafts`), the page only shows it: each handler takes over what the fields
hold, changes the draft, and answers with what is to be seen. So a reload, a second tab or a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.design import actions
from app.design.form import FORM_KEYS
from app.design.sections import (
    Components,
    model_section,
    preview_section,
    recipe_section,
    relation_section,
    side_panel,
    start_bar,
)
from app.design.show import Screen, Shown
from app.shared.frame import QUIET, html
from app.shared.lab import Lab
from storage.drafts import valid_id

# The secret only keeps the draft's id from lying readable in the browser's storage; a fixed one lets a second visit
# read what the first one wrote.
BROWSER_KEY, BROWSER_SECRET = "rote-lab-draft", "rote-lab"
# One draft's changes come in the order in which they were made.
IN_ORDER: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_id": "design",
    "concurrency_limit": 1,
}
# Requests may overtake each other: each says when the browser read its fields.
STAMP = "(...values) => { values[values.length - 1] = performance.timeOrigin + performance.now(); return values; }"
# A Textbox tells of its input only when keys are pressed (not of pasting, cutting, composing), and of its change also
# when the server made it, field by field while others are still old. So the page listens to the fields themselves.
TYPING = """
let timer = null;
const tell = () => { clearTimeout(timer); timer = null; trigger("typed"); };
const mine = (node) => node.closest(".design-columns") && !node.closest(".facts-table, .paste-panel, fieldset");
document.addEventListener("input", (event) => {
  if (!mine(event.target)) return;
  clearTimeout(timer);
  timer = setTimeout(tell, 200);
});
document.addEventListener("focusout", () => { if (timer) setTimeout(() => timer && tell(), 30); });
"""
GO_TO_RUN = "(run) => { if (run) location.assign('/run?run=' + encodeURIComponent(run)); }"
FORGET_CLONE = "() => roteLab.setAddress({clone: ''})"


def design_page(home: Path) -> None:
    """Build the page inside the current route."""
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
    c["stamp"] = gr.Number(visible=False)
    _wire(c, Shown(Lab(home)))


def _wire(c: Components, shown: Shown) -> None:
    names = [name for name in c if name != "draft_id"]
    outputs = [c[name] for name in names]
    form = [c["draft_id"], c["editing"], *(c[key] for key in FORM_KEYS), c["stamp"]]

    def handler(action: Callable[..., dict[str, Any]], extra: int) -> Callable[..., list[Any]]:
        """Give an action the draft's id, what was typed and its own inputs; turn its answer into outputs."""

        def run(*values: Any) -> list[Any]:
            own, (draft_id, editing, *typed, stamp) = values[:extra], values[extra:]
            if not valid_id(draft_id):
                return [gr.skip()] * len(names)
            answer = action(shown, actions.Request(Screen.read(draft_id, editing or ""), typed, stamp or 0), *own)
            known = dict(zip(FORM_KEYS, typed, strict=True))
            return [_update(answer, name, known) for name in names]

        return run

    def on(event: Any, action: Callable[..., dict[str, Any]], *inputs: str, **settings: Any) -> Any:
        own = [c[name] for name in inputs]
        return event(handler(action, len(inputs)), [*own, *form], outputs, js=STAMP, **{**IN_ORDER, **settings})

    def from_table(event: Any, action: Callable[..., dict[str, Any]]) -> None:
        """An event of the facts table, whose data say what was done."""

        def run(event_data: gr.EventData, *values: Any) -> list[Any]:
            return handler(partial(action, event=event_data), 0)(*values)

        event(run, form, outputs, js=STAMP, trigger_mode="multiple", **IN_ORDER)

    def opened(request: gr.Request, draft_id: Any) -> list[Any]:
        answer = actions.open_page(shown, draft_id, str(request.query_params.get("clone", "")))
        return [answer["draft_id"], *(answer.get(name, gr.skip()) for name in names)]

    # With inputs of its own, `gr.on(None, …)` would run again whenever they change.
    loaded = gr.on(None, None, **QUIET).then(opened, c["draft_id"], [c["draft_id"], *outputs], **IN_ORDER)
    loaded.then(None, js=FORGET_CLONE, **QUIET)

    on(c["typing"].typed, actions.edit, trigger_mode="always_last")
    chosen = [c[key].input for key in FORM_KEYS if isinstance(c[key], gr.Dropdown | gr.Radio)]
    on(partial(gr.on, chosen), actions.edit, trigger_mode="always_last")

    on(c["picker"].input, actions.pick, "picker")
    on(c["language"].input, actions.pick_language, "language")
    on(c["add_corpus"].input, actions.add_corpus, "add_corpus")
    on(c["add_own"].click, actions.add_own, trigger_mode="once")
    on(c["remove"].click, actions.remove, trigger_mode="once")
    from_table(c["table"].rows, actions.table_rows)
    from_table(c["table"].paste_rows, actions.table_paste)
    on(c["upload"].upload, actions.upload_facts, "upload", show_progress="minimal")
    on(c["paste_add"].click, partial(actions.paste_facts, replace=False), "paste_text", trigger_mode="once")
    on(c["paste_replace"].click, partial(actions.paste_facts, replace=True), "paste_text", trigger_mode="once")
    on(c["clear"].click, actions.clear_facts, trigger_mode="once")
    on(c["copy_generated"].click, actions.copy_generated, trigger_mode="once")

    on(c["preset"].input, actions.load_preset, "preset")
    on(c["earlier"].input, actions.load_run, "earlier")
    on(c["file_load"].click, actions.load_text, "file_text", trigger_mode="once")
    on(c["file_upload"].upload, actions.load_file, "file_upload")
    on(c["start_over"].click, actions.start_over, trigger_mode="once")
    on(c["undo"].click, actions.undo, trigger_mode="once")

    c["from_file"].click(lambda: gr.update(visible=True), None, c["file_panel"], **QUIET)
    c["file_close"].click(lambda: gr.update(visible=False), None, c["file_panel"], **QUIET)
    c["paste_open"].click(lambda: gr.update(visible=True), None, c["paste_panel"], **QUIET)

    on(c["yaml_panel"].expand, actions.show_yaml)
    on(c["start"].click, actions.start, trigger_mode="once").then(None, c["go"], js=GO_TO_RUN, **QUIET)


def _update(answer: dict[str, Any], name: str, known: dict[str, Any]) -> Any:
    """The update of one component. A field that shows its value already is left alone: somebody may be typing on."""
    if name not in answer:
        return gr.skip()
    value, empty = answer[name], (None, "")
    if name in known and (value == known[name] or (value in empty and known[name] in empty)):
        return gr.skip()
    return value
