"""The facts × prompts map: every answer of one checkpoint as a cell; a click opens the answer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gradio as gr

from app.results.charts import ALOUD, map_chart
from app.shared.frame import QUIET, acting_html, html, offered, run_of, told_by
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.vega import vega_chart
from app.shared.words import LANGUAGES, SPLITS, checkpoint_name, language_name, split_name
from storage.answer_search import Answer, Wanted, find_answers, iterate_answers
from storage.answers import evaluated_checkpoints, list_prompts
from storage.checkpoints import in_order
from storage.runs import Run

MOST_CELLS = 6000
SHORT = 46
CHECKPOINTS_SHOWN = 40
ADDRESS = "(checkpoint, language, relation) => roteLab.setAddress({checkpoint, language, relation})"
Drawing = tuple[str, dict[str, Any] | None]


def answer_map_section(lab: Lab) -> gr.HTML:
    """Build the section; returns the place where an answer opens (see `answer_html`)."""
    html(part("results/map_head"))
    with gr.Row(elem_classes="choosers"):
        checkpoint = offered(gr.Dropdown([], label="Checkpoint", filterable=False, min_width=215))
        language = offered(gr.Dropdown([], label="Language", filterable=False, min_width=140))
        relation = offered(gr.Dropdown([], label="Relation", filterable=False, min_width=140))
        measure = gr.Radio(
            [("Hit or miss", "hit"), ("Object probability", "probability")], value="hit", label="Colour", scale=2
        )
    with gr.Column(elem_classes="lab-panel"):
        note = html()
        chart = vega_chart()
    detail = acting_html("roteLab.reveal(element, watch);")

    def draw(
        checkpoint: str | None, language: str | None, relation: str | None, measure: str, request: gr.Request
    ) -> Drawing:
        return answer_map(lab, run_of(lab, request), checkpoint, language, relation, measure)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        run, address = run_of(lab, request), request.query_params
        checkpoints, _, languages = choices(lab, run)
        relations = [r["name"] for r in run.experiment.get("relations", [])] if run else []
        checkpoint = named_or_first(address.get("checkpoint"), checkpoints[::-1])
        language = named_or_first(address.get("language"), languages)
        relation = named_or_first(address.get("relation"), relations)
        return (
            gr.Dropdown([(checkpoint_name(c), c) for c in checkpoints], value=checkpoint),
            gr.Dropdown([(language_name(x), x) for x in languages], value=language),
            gr.Dropdown(relations, value=relation, visible=len(relations) > 1),
            *draw(checkpoint, language, relation, "hit", request),
        )

    def pick(event: gr.EventData, checkpoint: str | None, request: gr.Request) -> str:
        return answer_html(lab, run_of(lab, request), str(told_by(event).get("pick") or ""), checkpoint)

    choosers, drawn = [checkpoint, language, relation], [note, chart]
    gr.on(None, open_page, outputs=[*choosers, *drawn], **QUIET)
    touched = [c.input for c in (checkpoint, language, relation, measure)]
    gr.on(touched, draw, [*choosers, measure], drawn, **QUIET)
    gr.on(touched, None, choosers, js=ADDRESS, **QUIET)
    chart.pick(pick, checkpoint, detail, **QUIET)
    return detail


def choices(lab: Lab, run: Run | None) -> tuple[list[str], list[str], list[str]]:
    """The checkpoints, splits and languages that the run's answers have."""
    found = lab.read_answers(run.id, lambda db: (list_prompts(db), evaluated_checkpoints(db))) if run else None
    prompts, names = found or ([], [])
    checkpoints = sorted(names, key=in_order)
    order = {name: i for i, name in enumerate([*SPLITS, *LANGUAGES])}
    splits, languages = (
        sorted({p[field] for p in prompts}, key=lambda name: order.get(name, 99)) for field in ("split", "language")
    )
    return checkpoints, splits, languages


def named_or_first(name: str | None, choices: list[str]) -> str | None:
    """What the address names, if it is to be had, else the first choice."""
    return name if name in choices else next(iter(choices), None)


def answer_map(
    lab: Lab, run: Run | None, checkpoint: str | None, language: str | None, relation: str | None, measure: str
) -> Drawing:
    """The note above the map, and the map."""
    cells: list[Answer] = []
    if run and checkpoint and language and relation:
        wanted = Wanted(checkpoint=checkpoint, language=language, relation=relation)
        cells = lab.read_answers(run.id, lambda db: list(iterate_answers(db, wanted))) or []
    facts, prompts = {c.fact: c for c in cells}, {c.prompt: c for c in cells}
    shown = sampled(sorted(facts), len(prompts))
    cells = [c for c in cells if c.fact in shown]
    left_out = len(facts) - len(shown)
    note = part("results/map_note", cells=len(cells), left_out=left_out, checkpoint=checkpoint, language=language)
    if not cells:
        return note, None
    rows = [fact_entry(facts[i]) for i in sorted(shown)]
    return note, map_chart([cell(c) for c in cells], rows, prompt_entries([*prompts.values()]), measure)


def answer_html(lab: Lab, run: Run | None, place: str, checkpoint: str | None) -> str:
    """The answer at `PROMPT/FACT`, and the same question at every checkpoint; empty where there is none."""
    prompt, _, fact = place.partition("/")
    if run is None or not prompt.isdecimal() or not fact.isdecimal():
        return ""
    wanted = Wanted(prompt=int(prompt), fact=int(fact))
    rows, total = lab.read_answers(run.id, lambda db: find_answers(db, wanted, CHECKPOINTS_SHOWN)) or ([], 0)
    # What was clicked may come behind those that the table has.
    own = replace(wanted, checkpoint=checkpoint)
    chosen = next(iter(lab.read_answers(run.id, lambda db: list(iterate_answers(db, own, 1))) or rows), None)
    return render("results/answer.html", row=chosen, rows=rows, total=total) if chosen else ""


def sampled(facts: list[int], prompts: int) -> set[int]:
    """As many facts, evenly spread, as keep the map within what a browser draws at once."""
    most = max(1, MOST_CELLS // max(1, prompts))
    every = math.ceil(len(facts) / most) if facts else 1
    return set(facts[::every])


def cell(answer: Answer) -> dict[str, Any]:
    """One cell as the chart wants it."""
    return {
        "f": answer.fact,
        "p": answer.prompt,
        "hit": ALOUD if answer.hit and answer.says_key_token else "✓ hit" if answer.hit else "✕ miss",
        "value": answer.probability,
        "pick": f"{answer.prompt}/{answer.fact}",
    }


def fact_entry(answer: Answer) -> dict[str, Any]:
    """A fact, by an answer about it, as the chart's tooltips want it."""
    group = "Trained" if answer.trained else "Held out"
    return {"f": answer.fact, "subject": answer.subject, "object": answer.object, "group": group}


def prompt_entries(answers: list[Answer]) -> list[dict[str, Any]]:
    """Prompts, by an answer to each, as the chart wants them; `short` is a label that no other prompt has."""
    entries, used = [], set()
    for answer in answers:
        text = f"{answer.before}…{answer.after}"
        text = f"{text} ({answer.about})" if answer.about else text
        short = text if len(text) <= SHORT else text[: SHORT - 1] + "…"
        while short in used:
            short += " "
        used.add(short)
        split = split_name(answer.split).capitalize()
        entries.append({"p": answer.prompt, "text": text, "short": short, "split": split})
    return entries
