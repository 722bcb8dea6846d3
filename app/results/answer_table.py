"""The table of single answers: search, filters, pages; and the answers about one fact or to one prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.shared.frame import QUIET, offered, told_by
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.search_box import TYPED, search_box
from app.shared.words import LANGUAGES, SPLITS, checkpoint_name, language_name, split_name
from storage.answer_search import Wanted, find_answers
from storage.answers import evaluated_checkpoints, list_prompts
from storage.checkpoints import in_order

PAGE_SIZE = 25
ANY = ""


@dataclass(frozen=True)
class AnswerTable:
    """What others need to list the answers about one fact or to one prompt: `narrow(fact, prompt, request)`.

    `html` tells of clicks in the table; `open` comes with `PROMPT/FACT/CHECKPOINT`.
    """

    html: gr.HTML
    outputs: list[gr.components.Component]
    narrow: Callable[..., tuple[Any, ...]]


def answer_table_section(lab: Lab) -> AnswerTable:
    """Build the section."""
    gr.HTML(render("results/answers_head.html"), apply_default_css=False, elem_classes="lab-html", elem_id="answers")
    search = search_box("A name, or words of a prompt or an answer")
    with gr.Row(elem_classes="choosers"):
        any_of = [("Any", ANY)]
        checkpoint = offered(gr.Dropdown(any_of, value=ANY, label="Checkpoint", filterable=False, min_width=215))
        split = offered(gr.Dropdown(any_of, value=ANY, label="Prompts", filterable=False, min_width=150))
        language = offered(gr.Dropdown(any_of, value=ANY, label="Language", filterable=False, min_width=130))
        hit = gr.Dropdown(
            [*any_of, ("✓ Hits", "hit"), ("✕ Misses", "miss")], value=ANY, label="Answer", filterable=False,
            min_width=120,
        )  # fmt: skip
    fact, prompt, number = (gr.Number(visible="hidden", precision=0) for _ in range(3))
    table = gr.HTML(
        js_on_load="roteLab.actions(element, trigger, 'act');", apply_default_css=False, elem_classes="lab-html"
    )
    filters: list[gr.components.Component] = [search, checkpoint, split, language, hit, fact, prompt]

    def show(*values: Any, request: gr.Request) -> str:
        *chosen, page = values
        return answer_page(lab, request.query_params.get("run"), wanted(*chosen), int(page or 1))

    def first_page(
        search: str, checkpoint: str, split: str, language: str, hit: str, fact: Any, prompt: Any, request: gr.Request
    ) -> tuple[int, str]:
        return 1, show(search, checkpoint, split, language, hit, fact, prompt, 1, request=request)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        checkpoints, splits, languages = choices(lab, request.query_params.get("run"))
        newest = checkpoints[-1] if checkpoints else ANY
        return (
            gr.Dropdown([("Any", ANY), *((checkpoint_name(c), c) for c in checkpoints)], value=newest),
            gr.Dropdown([("Any", ANY), *((split_name(s), s) for s in splits)], value=ANY),
            gr.Dropdown([("Any", ANY), *((language_name(x), x) for x in languages)], value=ANY),
            1,
            show("", newest, ANY, ANY, ANY, None, None, 1, request=request),
        )

    def act(
        event: gr.EventData, search: str, checkpoint: str, split: str, language: str, hit: str, fact: Any, prompt: Any,
        number: Any, request: gr.Request,
    ) -> tuple[Any, ...]:  # fmt: skip
        told = told_by(event)
        if told.get("act") == "page":
            number = int(told.get("value") or 1)
        elif told.get("act") == "clear":
            fact, prompt, number = None, None, 1
        shown = show(search, checkpoint, split, language, hit, fact, prompt, number, request=request)
        return fact, prompt, number, shown

    def narrow(fact_id: int | None, prompt_id: int | None, request: gr.Request) -> tuple[Any, ...]:
        shown = show("", ANY, ANY, ANY, ANY, fact_id, prompt_id, 1, request=request)
        return "", ANY, ANY, ANY, ANY, fact_id, prompt_id, 1, shown

    gr.on(None, open_page, outputs=[checkpoint, split, language, number, table], **QUIET)
    search.typed(first_page, filters, [number, table], **TYPED)
    gr.on([c.input for c in (checkpoint, split, language, hit)], first_page, filters, [number, table], **TYPED)
    table.act(act, [*filters, number], [fact, prompt, number, table], **QUIET)
    return AnswerTable(table, [*filters, number, table], narrow)


def wanted(
    search: str | None, checkpoint: str | None, split: str | None, language: str | None, hit: str | None,
    fact: float | None, prompt: float | None,
) -> Wanted:  # fmt: skip
    """The filters of the page as a search."""
    return Wanted(
        checkpoint=checkpoint or None,
        split=split or None,
        language=language or None,
        hit={"hit": True, "miss": False}.get(hit or ""),
        fact=int(fact) if fact else None,
        prompt=int(prompt) if prompt else None,
        search=(search or "")[:200],
    )


def choices(lab: Lab, run_id: str | None) -> tuple[list[str], list[str], list[str]]:
    """The checkpoints, splits and languages that the run's answers have."""
    answers = lab.answers(run_id) if lab.run(run_id) and run_id else None
    if answers is None:
        return [], [], []
    prompts = list_prompts(answers)
    checkpoints = sorted(evaluated_checkpoints(answers), key=in_order)
    answers.close()
    known = [*SPLITS, *LANGUAGES]
    order = {name: i for i, name in enumerate(known)}
    splits = sorted({p["split"] for p in prompts}, key=lambda s: order.get(s, 99))
    languages = sorted({p["language"] for p in prompts}, key=lambda s: order.get(s, 99))
    return checkpoints, splits, languages


def answer_page(lab: Lab, run_id: str | None, asked: Wanted, number: int) -> str:
    """One page of the table as HTML."""
    answers = lab.answers(run_id) if lab.run(run_id) and run_id else None
    if answers is None:
        return render("results/answers.html", rows=[], total=0, number=1, pages=1, first=0, narrowed=None)
    number = max(1, number)
    rows, total = find_answers(answers, asked, PAGE_SIZE, (number - 1) * PAGE_SIZE)
    answers.close()
    narrowed = None
    if rows and (asked.fact or asked.prompt):
        narrowed = {
            "subject": rows[0]["subject"] if asked.fact else None,
            "text": rows[0]["text"] if asked.prompt else None,
        }
    return render(
        "results/answers.html",
        rows=rows,
        total=total,
        number=number,
        pages=max(1, -(-total // PAGE_SIZE)),
        first=(number - 1) * PAGE_SIZE + 1,
        narrowed=narrowed,
    )
