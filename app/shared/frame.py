"""What every page begins with: the header with navigation, the worker's state and the theme switch."""

from __future__ import annotations

from typing import Any, TypeVar

import gradio as gr

from app.shared.lab import Lab
from app.shared.render import render
from storage.accounts import User
from storage.acting import Role
from storage.runs import Run

LINKS = (
    ("/", "Lab"),
    ("/design", "Design"),
    ("/runs", "Runs"),
    ("/results", "Results"),
    ("/studies", "Studies"),
    ("/paper", "Paper"),
    ("/ask", "Ask"),
    ("/attack", "Attack"),
)
# For events that only read: no spinner, no queue, not in the public API.
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Selects tell their choice as clicks do, and keep the focus when they are drawn anew.
CHOOSERS = """
let chosen = "";
element.addEventListener("change", (event) => {
  const select = event.target.closest("select[data-pick]");
  if (!select) return;
  chosen = select.id;
  trigger("act", { act: select.dataset.pick, name: select.dataset.name || "", value: select.value });
});
watch("value", () => {
  const shown = element.querySelector("[data-view]");
  if (shown) roteLab.setAddress(JSON.parse(shown.dataset.view));
  if (chosen) document.getElementById(chosen)?.focus();
  chosen = "";
});
"""
# One run is looked at from the list of runs.
PARENTS = {"/run": "/runs", "/audit": "/people"}
# How often the header looks how the worker is.
LOOK_SECONDS, STARTING_SECONDS = 10, 1

Choice = TypeVar("Choice", gr.Dropdown, gr.Radio)


def page_frame(lab: Lab, path: str) -> None:
    """Build the header of the page at `path` inside the current page. Gradio's own navigation bar stays hidden."""
    gr.Navbar(visible=False)

    def look(request: gr.Request) -> tuple[str, gr.Timer]:
        worker = lab.worker_state()
        seconds = STARTING_SECONDS if worker == "starting" else LOOK_SECONDS
        return header(path, worker, account_behind(request)), gr.Timer(seconds)

    # Built once for all visitors, before the worker starts: how it is comes with the page's load.
    top = html(header(path, "unknown"))
    timer = gr.Timer(LOOK_SECONDS)
    gr.on(None, look, outputs=[top, timer], **QUIET)
    timer.tick(look, outputs=[top, timer], **QUIET)


def header(path: str, worker: str, user: User | None = None) -> str:
    """The header of the page at `path` as HTML. `worker`: as `Lab.worker_state` says, or `unknown`; `user`: the account
    that looks at it, where the lab has accounts."""
    links = [link for link in LINKS if link[0] != "/design" or not user or user.role is not Role.VIEWER]
    links += [("/people", "People")] if user and user.role is Role.ADMIN else []
    return render("shared/header.html", links=links, here=PARENTS.get(path, path), worker=worker, user=user)


def account_behind(request: gr.Request | list[gr.Request] | None) -> User | None:
    """The account that asks, where the lab has accounts."""
    asked = request[0] if isinstance(request, list) and request else request
    if isinstance(asked, gr.Request) and asked.request:
        user: User | None = asked.request.scope.get("account")
        return user
    return None


def html(value: Any = None, *classes: str, **settings: Any) -> gr.HTML:
    """A place for rendered HTML in the lab's own look."""
    return gr.HTML(value, apply_default_css=False, elem_classes=["lab-html", *classes], **settings)


def acting_html(script: str = "", **settings: Any) -> gr.HTML:
    """The same for HTML with things to click: each element with `data-act` raises `act`, which `told_by` reads.

    `script`: what else the place does in the browser.
    """
    return html(js_on_load=f"roteLab.actions(element, trigger, 'act');{script}", **settings)


def run_of(lab: Lab, request: gr.Request) -> Run | None:
    """The run that the address names (`?run=ID`), if there is one."""
    return lab.run(request.query_params.get("run"))


def told_by(event: gr.EventData) -> dict[str, Any]:
    """What a click told: the data-* values of the clicked element, as texts."""
    return event._data if isinstance(event._data, dict) else {}


def offered(component: Choice) -> Choice:
    """A dropdown, or radio buttons, whose choices come with the run, accepting whatever its page was offered.

    A page left open over a restart of the server still sends what it had been offered, which Gradio, who remembers
    choices by session, would refuse; the handlers treat an unknown choice as one without answers.
    """
    setattr(component, "preprocess", lambda payload: payload)  # noqa: B010 - a method of this one instance
    return component
