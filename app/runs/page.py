"""The Runs page: every run, live, with search, filter, paging and the actions that fit each state."""

from __future__ import annotations

import gradio as gr

from app.shared.frame import QUIET, acting_html, html, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.run_actions import carry_out
from app.shared.run_rows import row_of
from app.shared.search_box import TYPED, search_box
from app.shared.words import STATES
from storage.runs import count_runs, list_runs

PAGE_SIZE = 50
TICK_SECONDS = 2
SEARCH_LENGTH = 200


def runs_page(lab: Lab) -> None:
    """Build the page. Search, state and page number live in the address."""
    html(part("runs/list_head"))
    search = search_box("Search by name, model or id", address_key="q")
    state = gr.Textbox(visible="hidden", elem_id="state")
    number = gr.Number(1, visible="hidden", precision=0)
    table = acting_html()

    def draw(search: str | None, state: str | None, number: float | None) -> str:
        return runs_table(lab, search or "", state or "", int(number or 1))

    def open_page(request: gr.Request) -> tuple[str, str, int, str]:
        address = request.query_params
        text, state = address.get("q", "")[:SEARCH_LENGTH], address.get("state", "")
        page = int(address["page"]) if address.get("page", "").isdecimal() else 1
        return text, state if state in STATES else "", page, draw(text, state, page)

    def act(
        event: gr.EventData, search: str | None, state: str | None, number: float | None
    ) -> tuple[str | None, float | None, str]:
        click = told_by(event)
        if click.get("act") == "state":
            state, number = str(click.get("value") or ""), 1
        elif click.get("act") == "page":
            number = int(click.get("value") or 1)
        else:
            carry_out(lab, str(click.get("act")), str(click.get("run")))
        return state, number, draw(search, state, number)

    inputs = [search, state, number]
    gr.on(None, open_page, outputs=[*inputs, table], **QUIET)
    gr.Timer(TICK_SECONDS).tick(draw, inputs, table, **QUIET)
    table.act(act, inputs, [state, number, table], **QUIET)
    search.typed(lambda text, state: (1, draw(text, state, 1)), [search, state], [number, table], **TYPED)


def runs_table(lab: Lab, search: str, state: str, number: int) -> str:
    """One page of the list as HTML."""
    search, state = search[:SEARCH_LENGTH], state if state in STATES else ""
    matching = count_runs(lab.db, search=search, state=state)
    pages = max(1, -(-matching // PAGE_SIZE))
    number = min(max(1, number), pages)
    runs = list_runs(lab.db, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE, search=search, state=state)
    workers = bool(lab.workers_alive())
    return render(
        "runs/list.html",
        rows=[row_of(run, workers) for run in runs],
        chips=[(name, STATES[name][1], count_runs(lab.db, search=search, state=name)) for name in STATES],
        total=count_runs(lab.db, search=search),
        anything=count_runs(lab.db),
        matching=matching,
        state=state,
        search=search,
        number=number,
        pages=pages,
        first=(number - 1) * PAGE_SIZE + 1,
        last=(number - 1) * PAGE_SIZE + len(runs),
    )
