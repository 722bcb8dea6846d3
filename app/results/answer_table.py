"""The table of single answers: search, filters, pages; and the answers about one fact or to one prompt."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.results.answer_map import answer_html, choices
from app.shared.frame import QUIET, acting_html, html, offered, run_of, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.search_box import TYPED, search_box
from app.shared.words import checkpoint_name, language_name, split_name
from storage.answer_search import Wanted, find_answers
from storage.runs import Run

PAGE_SIZE = 25
ANY = ""
# A link to #answers: charts above them come later and move them, so they are held in view until the reader moves.
TO_ANSWERS = """if (location.hash === '#answers') {
    const held = new ResizeObserver(() => document.getElementById('answers')?.scrollIntoView());
    held.observe(document.body);
    for (const moved of ['wheel', 'pointerdown', 'keydown', 'touchstart'])
        addEventListener(moved, () => held.disconnect(), { once: true });
}"""
ANY_OF = [("Any", ANY)]


def answer_table_section(lab: Lab, detail: gr.HTML) -> None:
    """Build the section. `detail`: where an answer opens; its fact or its prompt may narrow the table."""
    html(part("results/answers_head"), elem_id="answers")
    search = search_box("A name, or words of a prompt or an answer")
    with gr.Row(elem_classes="choosers"):
        checkpoint = offered(gr.Dropdown(ANY_OF, value=ANY, label="Checkpoint", filterable=False, min_width=215))
        split = offered(gr.Dropdown(ANY_OF, value=ANY, label="Prompts", filterable=False, min_width=150))
        language = offered(gr.Dropdown(ANY_OF, value=ANY, label="Language", filterable=False, min_width=130))
        hit = gr.Dropdown(
            [*ANY_OF, ("✓ Hits", "hit"), ("✕ Misses", "miss"), ("Says the key token", "aloud")], value=ANY,
            label="Answer", filterable=False, min_width=120,
        )  # fmt: skip
    fact, prompt, number = (gr.Number(visible="hidden", precision=0) for _ in range(3))
    table = acting_html(TO_ANSWERS)
    filters: list[gr.components.Component] = [search, checkpoint, split, language, hit, fact, prompt]

    def draw(request: gr.Request, *values: Any) -> str:
        """`values`: what `filters` and `number` hold."""
        *chosen, page = values
        return answer_page(lab, run_of(lab, request), wanted(*chosen), int(page or 1))

    def first_page(request: gr.Request, *chosen: Any) -> tuple[int, str]:
        return 1, draw(request, *chosen, 1)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        checkpoints, splits, languages = choices(lab, run_of(lab, request))
        address, newest = request.query_params, checkpoints[-1] if checkpoints else ANY
        named = [address.get(field, ANY) for field in ("checkpoint", "split", "language")]
        # Only who names the prompts came for their answers: the map's checkpoint and language stand in the address too.
        wants = named[1] in splits
        newest = named[0] if wants and named[0] in checkpoints else newest
        split = named[1] if wants else ANY
        language = named[2] if wants and named[2] in languages else ANY
        return (
            gr.Dropdown([*ANY_OF, *((checkpoint_name(c), c) for c in checkpoints)], value=newest),
            gr.Dropdown([*ANY_OF, *((split_name(s), s) for s in splits)], value=split),
            gr.Dropdown([*ANY_OF, *((language_name(x), x) for x in languages)], value=language),
            *first_page(request, "", newest, split, language, ANY, None, None),
        )

    def act(event: gr.EventData, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        click = told_by(event)
        *chosen, fact, prompt, number = values
        if click.get("act") == "page":
            number = int(click.get("value") or 1)
        elif click.get("act") == "clear":
            fact, prompt, number = None, None, 1
        return fact, prompt, number, draw(request, *chosen, fact, prompt, number)

    def open_answer(event: gr.EventData, request: gr.Request) -> Any:
        if told_by(event).get("act") != "open":
            return gr.skip()
        place, _, checkpoint = str(told_by(event).get("value")).rpartition("/")
        return answer_html(lab, run_of(lab, request), place, checkpoint)

    def narrow(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        kind, number = told_by(event).get("act"), int(told_by(event).get("value") or 0)
        fact, prompt = (number if kind == named else None for named in ("fact", "prompt"))
        chosen = ("", ANY, ANY, ANY, ANY, fact, prompt)
        return *chosen, *first_page(request, *chosen)

    gr.on(None, open_page, outputs=[checkpoint, split, language, number, table], **QUIET)
    search.typed(first_page, filters, [number, table], **TYPED)
    gr.on([c.input for c in (checkpoint, split, language, hit)], first_page, filters, [number, table], **TYPED)
    table.act(act, [*filters, number], [fact, prompt, number, table], **QUIET)
    table.act(open_answer, outputs=detail, **QUIET)
    detail.act(narrow, outputs=[*filters, number, table], **QUIET)


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
        says_key_token=True if hit == "aloud" else None,
        fact=int(fact) if fact else None,
        prompt=int(prompt) if prompt else None,
        search=(search or "")[:200],
    )


def answer_page(lab: Lab, run: Run | None, wanted: Wanted, number: int) -> str:
    """One page of the table as HTML."""
    number = max(1, number)
    first = (number - 1) * PAGE_SIZE
    found = lab.read_answers(run.id, lambda db: find_answers(db, wanted, PAGE_SIZE, first)) if run else None
    if found is None:
        return render("results/answers.html", rows=[], total=0, number=1, pages=1, first=0, narrowed=None)
    rows, total = found
    narrowed = None
    if rows and (wanted.fact or wanted.prompt):
        narrowed = {
            "subject": rows[0].subject if wanted.fact else None,
            "text": rows[0].text if wanted.prompt else None,
        }
    pages = max(1, -(-total // PAGE_SIZE))
    return render(
        "results/answers.html", rows=rows, total=total, number=number, pages=pages, first=first + 1, narrowed=narrowed
    )
