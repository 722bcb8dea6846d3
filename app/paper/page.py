"""The Paper page: each of the paper's tables beside ours, what agrees, and one click that measures it."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app.paper.charts import paper_chart
from app.paper.sources import Measured, Sources
from app.paper.table import Beside, beside, by_series
from app.paper.view import View
from app.shared.frame import CHOOSERS, QUIET, acting_html, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.vega import vega_chart
from app.shared.view import noted, sign_of
from engine.execution.studies.queue import queue_shipped
from engine.paper.claims import Verdict, summary
from engine.paper.tables import Table, load_paper
from engine.studies.presets import STUDIES

LOOK_SECONDS = 20.0
HEAD = '<link rel="stylesheet" href="/lab/paper.css">'
MARKS = {
    Verdict.AGREES: ("✓", "agrees"), Verdict.WEAKER: ("↘", "partly"), Verdict.STRONGER: ("↗", "partly"),
    Verdict.CONTRADICTS: ("✕", "contradicts"), Verdict.ABSENT: ("○", "contradicts"),
    Verdict.UNDECIDED: ("≈", "undecided"), Verdict.MISSING: ("–", "missing"),
}  # fmt: skip


def paper_page(lab: Lab) -> None:
    """Build the page. Whose figures, and which column of a chart, live in the address."""
    view, seen = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    blocks: dict[str, gr.HTML] = {"top": acting_html(CHOOSERS, head=HEAD)}
    for name in load_paper().tables:
        blocks[f"{name}_head"] = acting_html(CHOOSERS)
        blocks[f"{name}_chart"] = vega_chart(visible=False)
        blocks[f"{name}_table"] = acting_html()
    timer = gr.Timer(LOOK_SECONDS)

    def draw(shown: View, before: str | None = None, said: str = "") -> tuple[Any, ...]:
        parts = parts_of(lab, shown, said)
        before_it, now = noted(before), {name: sign_of(value) for name, value in parts.items()}
        return json.dumps(now), *(
            gr.skip() if before_it.get(name) == now[name]
            else gr.HTML(value, visible=value is not None) if name.endswith("_chart") else value
            for name, value in parts.items()
        )  # fmt: skip

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        shown = View.of_address(request.query_params)
        return shown.model_dump_json(), *draw(shown)

    def act(event: gr.EventData, text: str | None, before: str | None) -> tuple[Any, ...]:
        shown, said = View.of_page(text), ""
        try:
            shown, said = act_on(lab, shown, told_by(event))
        except ValueError as error:
            said = part("paper/problem", words=str(error))
        return shown.model_dump_json(), *draw(shown, before, said)

    def tick(text: str | None, before: str | None) -> tuple[Any, ...]:
        return draw(View.of_page(text), before) if text else (gr.skip(),) * len(drawn)

    drawn = [seen, *blocks.values()]
    gr.on(None, open_page, outputs=[view, *drawn], **QUIET)
    for name, block in blocks.items():
        if not name.endswith("_chart"):
            block.act(act, [view, seen], [view, *drawn], **QUIET)
    timer.tick(tick, [view, seen], drawn, **QUIET)


def act_on(lab: Lab, view: View, clicked: dict[str, Any]) -> tuple[View, str]:
    """Carry out a click; returns the view after it, and what is said of it. Raises ValueError with a sentence."""
    act, name, value = (str(clicked.get(key) or "") for key in ("act", "name", "value"))
    if act == "start":
        study = queue_shipped(lab.db, value)
        return view, part("paper/queued", called=value, study=study)
    if act in ("sources", "columns") and name in load_paper().tables:
        return view.choosing(act, name, value[:60]), ""
    return view, ""


def parts_of(lab: Lab, view: View, said: str = "") -> dict[str, Any]:
    """What the page is made of, by block."""
    paper, sources = load_paper(), Sources(lab)
    parts: dict[str, Any] = {"top": ""}
    judged = []
    for name, table in paper.tables.items():
        measured = sources.chosen(table, view.source(name))
        shown = beside(table, sources.ours(measured))
        judged += shown.judged
        column = view.column(name) if view.column(name) in table.columns else table.chart
        model = measured.model if measured else ""
        parts[f"{name}_head"] = head(name, table, shown, sources.of(table), measured, column)
        parts[f"{name}_chart"] = paper_chart(shown, column, model) if table.columns else None
        parts[f"{name}_table"] = below(name, table, shown, measured) if table.columns else ""
    parts["top"] = render(
        "paper/top.html", paper=paper, summary=summary(judged), total=len(judged), marks=MARKS, said=said,
        address=json.dumps(view.address()),
    )  # fmt: skip
    return parts


def head(
    name: str, table: Table, shown: Beside, found: list[Measured], measured: Measured | None, column: str
) -> str:  # fmt: skip
    """What stands above a table's chart."""
    return render(
        "paper/head.html", name=name, table=table, shown=shown, found=found, measured=measured, column=column,
        marks=MARKS, arxiv=load_paper().source.arxiv, busy=next((m for m in found if m.busy), None),
    )  # fmt: skip


def below(name: str, table: Table, shown: Beside, measured: Measured | None) -> str:
    """The table itself."""
    shown_one = measured.name if measured else ""  # what is shown is what is run again
    shipped = next((study for study in (shown_one, table.study) if study in STUDIES.names()), "")
    return render(
        "paper/table.html", name=name, table=table, shown=shown, measured=measured, groups=by_series(shown.lines),
        further=by_series(shown.further), study=STUDIES.load(shipped) if shipped else None, again=shipped == shown_one,
    )  # fmt: skip
