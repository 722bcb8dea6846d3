"""The Runs page: every run, live, with search, filter, paging and the actions that fit each state.

A study's runs would hide all others, so they are listed when they are asked for, or looked for.
"""

from __future__ import annotations

import gradio as gr

from app.shared.around import around
from app.shared.frame import QUIET, acting_html, html, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.run_actions import carry_out
from app.shared.run_rows import row_of
from app.shared.search_box import TYPED, search_box
from app.shared.words import STATES
from storage.runs import count_runs, list_runs

PAGE_SIZE = 50
MOST_WAITING = 10_000
TICK_SECONDS = 2
SEARCH_LENGTH = 200


def runs_page(lab: Lab) -> None:
    """Build the page. Search, state, page number and whether studies' runs are listed live in the address."""
    html(part("runs/list_head"))
    search = search_box("Search by name, model or id", address_key="q")
    state = gr.Textbox(visible="hidden", elem_id="state")
    studies = gr.Textbox(visible="hidden", elem_id="studies")
    number = gr.Number(1, visible="hidden", precision=0)
    table = acting_html()

    def draw(search: str | None, state: str | None, number: float | None, studies: str | None) -> str:
        return runs_table(lab, search or "", state or "", int(number or 1), bool(studies))

    def open_page(request: gr.Request) -> tuple[str, str, int, str, str]:
        address = request.query_params
        text, state = address.get("q", "")[:SEARCH_LENGTH], address.get("state", "")
        page = int(address["page"]) if address.get("page", "").isdecimal() else 1
        shown = "yes" if address.get("studies") == "yes" else ""
        return text, state if state in STATES else "", page, shown, draw(text, state, page, shown)

    def act(
        event: gr.EventData, search: str | None, state: str | None, number: float | None, studies: str | None
    ) -> tuple[str | None, float | None, str | None, str]:
        click = told_by(event)
        if click.get("act") == "state":
            state, number = str(click.get("value") or ""), 1
        elif click.get("act") == "studies":
            studies, number = "yes" if click.get("value") == "yes" else "", 1
        elif click.get("act") == "page":
            number = int(click.get("value") or 1)
        else:
            carry_out(lab, str(click.get("act")), str(click.get("run")), str(click.get("value") or ""))
        return state, number, studies, draw(search, state, number, studies)

    inputs = [search, state, number, studies]
    gr.on(None, open_page, outputs=[*inputs, table], **QUIET)
    gr.Timer(TICK_SECONDS).tick(draw, inputs, table, **QUIET)
    table.act(act, inputs, [state, number, studies, table], **QUIET)
    typed = [search, state, studies]
    search.typed(lambda text, state, of: (1, draw(text, state, 1, of)), typed, [number, table], **TYPED)


def runs_table(lab: Lab, search: str, state: str, number: int, studies: bool = False) -> str:
    """One page of the list as HTML. studies: whether the runs of studies are listed, too."""
    search, state = search[:SEARCH_LENGTH], state if state in STATES else ""
    anything, others = count_runs(lab.db), count_runs(lab.db, of_studies=False)
    listed = studies or bool(search.strip()) or not others
    matching = count_runs(lab.db, search=search, state=state, of_studies=listed)
    pages = max(1, -(-matching // PAGE_SIZE))
    number = min(max(1, number), pages)
    offset = (number - 1) * PAGE_SIZE
    rest = around(lab)
    if state == "queued":  # in the order in which they will start
        runs = list_runs(lab.db, limit=MOST_WAITING, search=search, state=state, of_studies=listed)
        place = {run: number for number, run in enumerate(rest.waiting)}
        runs = sorted(runs, key=lambda run: place.get(run.id, len(place)))[offset : offset + PAGE_SIZE]
    else:
        runs = list_runs(lab.db, limit=PAGE_SIZE, offset=offset, search=search, state=state, of_studies=listed)
    counted = {name: count_runs(lab.db, search=search, state=name, of_studies=listed) for name in STATES}
    return render(
        "runs/list.html",
        rows=[row_of(run, rest) for run in runs],
        chips=[(name, STATES[name][1], count) for name, count in counted.items()],
        total=count_runs(lab.db, search=search, of_studies=listed),
        anything=anything,
        of_studies=anything - others if others and not search.strip() else 0,
        studies=studies,
        shared=len({one.owner for one in rest.waiting.values()}) > 1,
        matching=matching,
        state=state,
        search=search,
        number=number,
        pages=pages,
        first=offset + 1,
        last=offset + len(runs),
    )
