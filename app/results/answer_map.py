"""The facts × prompts map: every answer of one checkpoint as a cell; a click opens the answer."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from app.results.answer_table import AnswerTable, choices
from app.results.charts import map_chart
from app.shared.frame import QUIET, offered, told_by
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.vega import vega_chart
from app.shared.words import checkpoint_name, language_name, split_name
from storage.answer_search import Wanted, find_answers
from storage.answers import answer_map, list_facts, list_prompts

MOST_CELLS = 6000
SHORT = 46
CHECKPOINTS_SHOWN = 40
ADDRESS = "(checkpoint, language, relation) => roteLab.setAddress({checkpoint, language, relation})"


class AnswerMap:
    """The section; `connect` joins it to the table that lists a fact's or a prompt's answers."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        gr.HTML(render("results/map_head.html"), apply_default_css=False, elem_classes="lab-html")
        with gr.Row(elem_classes="choosers"):
            self.checkpoint = offered(gr.Dropdown([], label="Checkpoint", filterable=False, min_width=215))
            self.language = offered(gr.Dropdown([], label="Language", filterable=False, min_width=140))
            self.relation = offered(gr.Dropdown([], label="Relation", filterable=False, min_width=140))
            self.measure = gr.Radio(
                [("Hit or miss", "hit"), ("Object probability", "probability")], value="hit", label="Colour", scale=2
            )
        with gr.Column(elem_classes="lab-panel"):
            self.note = gr.HTML(apply_default_css=False, elem_classes="lab-html")
            self.chart = vega_chart()
        self.detail = gr.HTML(
            js_on_load="roteLab.actions(element, trigger, 'act'); roteLab.reveal(element, watch);",
            apply_default_css=False,
            elem_classes="lab-html",
        )
        choosers = [self.checkpoint, self.language, self.relation]
        drawn = [self.note, self.chart]
        gr.on(None, self.open_page, outputs=[*choosers, *drawn], **QUIET)
        touched = [c.input for c in (self.checkpoint, self.language, self.relation, self.measure)]
        gr.on(touched, self.draw, [*choosers, self.measure], drawn, **QUIET)
        gr.on(touched, None, choosers, js=ADDRESS, **QUIET)
        self.chart.pick(self.open_answer, self.checkpoint, self.detail, **QUIET)

    def connect(self, table: AnswerTable) -> None:
        """Let the table open answers, and an opened answer narrow the table to its fact or its prompt."""

        def narrow(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
            told = told_by(event)
            number = int(told.get("value") or 0)
            return table.narrow(
                number if told.get("act") == "fact" else None, number if told.get("act") == "prompt" else None, request
            )

        def open_row(event: gr.EventData, request: gr.Request) -> Any:
            told = told_by(event)
            if told.get("act") != "open":
                return gr.skip()
            place, _, checkpoint = str(told.get("value")).rpartition("/")
            return self.show_answer(place, checkpoint, request)

        self.detail.act(narrow, outputs=table.outputs, **QUIET)
        table.html.act(open_row, outputs=self.detail, **QUIET)

    def open_page(self, request: gr.Request) -> tuple[Any, ...]:
        """Fill the choosers with what the run has, as the address asks."""
        asked = request.query_params
        checkpoints, _, languages = choices(self.lab, asked.get("run"))
        run = self.lab.run(asked.get("run"))
        relations = [r["name"] for r in run.experiment.get("relations", [])] if run else []
        checkpoint = asked_or(asked.get("checkpoint"), checkpoints[::-1])
        language = asked_or(asked.get("language"), languages)
        relation = asked_or(asked.get("relation"), relations)
        return (
            gr.Dropdown([(checkpoint_name(c), c) for c in checkpoints], value=checkpoint),
            gr.Dropdown([(language_name(x), x) for x in languages], value=language),
            gr.Dropdown(relations, value=relation, visible=len(relations) > 1),
            *self.draw(checkpoint, language, relation, "hit", request),
        )

    def draw(
        self, checkpoint: str | None, language: str | None, relation: str | None, measure: str, request: gr.Request
    ) -> tuple[str, dict[str, Any] | None]:
        """The note above the map, and the map."""
        run_id = request.query_params.get("run")
        answers = self.lab.answers(run_id) if run_id and self.lab.run(run_id) else None
        if answers is None or not (checkpoint and language and relation):
            return render("results/map_note.html", cells=0, left_out=0, checkpoint=checkpoint, language=language), None
        cells = answer_map(answers, checkpoint, language, relation)
        facts = {f["id"]: f for f in list_facts(answers)}
        prompts = {p["id"]: p for p in list_prompts(answers)}
        answers.close()
        shown = sampled(sorted({c["fact"] for c in cells}), len({c["prompt"] for c in cells}))
        left_out = len({c["fact"] for c in cells}) - len(shown)
        cells = [c for c in cells if c["fact"] in shown]
        note = render(
            "results/map_note.html", cells=len(cells), left_out=left_out, checkpoint=checkpoint, language=language
        )
        if not cells:
            return note, None
        return note, map_chart(
            [cell(c) for c in cells],
            [fact_entry(facts[i]) for i in sorted(shown)],
            prompt_entries([prompts[i] for i in sorted({c["prompt"] for c in cells})]),
            measure,
        )

    def open_answer(self, event: gr.EventData, checkpoint: str | None, request: gr.Request) -> str:
        """The answer behind a cell."""
        return self.show_answer(str(told_by(event).get("pick") or ""), checkpoint, request)

    def show_answer(self, place: str, checkpoint: str | None, request: gr.Request) -> str:
        """The answer at `PROMPT/FACT`, and the same question at every checkpoint; empty where there is none."""
        run_id = request.query_params.get("run")
        prompt, _, fact = place.partition("/")
        answers = self.lab.answers(run_id) if run_id and self.lab.run(run_id) else None
        if answers is None or not (prompt.isdecimal() and fact.isdecimal()):
            return ""
        rows, _ = find_answers(answers, Wanted(prompt=int(prompt), fact=int(fact)), CHECKPOINTS_SHOWN)
        answers.close()
        chosen = next((r for r in rows if r["checkpoint"] == checkpoint), rows[0] if rows else None)
        return render("results/answer.html", row=chosen, rows=rows) if chosen else ""


def asked_or(asked: str | None, choices: list[str]) -> str | None:
    """What the address asks for, if it is to be had, else the first choice."""
    return asked if asked in choices else next(iter(choices), None)


def sampled(facts: list[int], prompts: int) -> set[int]:
    """As many facts, evenly spread, as keep the map within what a browser draws at once."""
    most = max(1, MOST_CELLS // max(1, prompts))
    every = math.ceil(len(facts) / most) if facts else 1
    return set(facts[::every])


def cell(row: dict[str, Any]) -> dict[str, Any]:
    """One cell as the chart wants it."""
    return {
        "f": row["fact"],
        "p": row["prompt"],
        "hit": "✓ hit" if row["hit"] else "✕ miss",
        "value": math.exp(row["log_probability"]),
        "pick": f"{row['prompt']}/{row['fact']}",
    }


def fact_entry(fact: dict[str, Any]) -> dict[str, Any]:
    """A fact as the chart's tooltips want it."""
    group = "Trained" if fact["trained"] else "Held out"
    return {"f": fact["id"], "subject": fact["subject"], "object": fact["object"], "group": group}


def prompt_entries(prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The prompts as the chart wants them; `short` is a label that no other prompt has."""
    entries, used = [], set()
    for prompt in prompts:
        text = prompt["text"].replace("{subject}", "…")
        text = f"{text} ({prompt['about']})" if prompt["about"] else text
        short = text if len(text) <= SHORT else text[: SHORT - 1] + "…"
        while short in used:
            short += " "
        used.add(short)
        split = split_name(prompt["split"]).capitalize()
        entries.append({"p": prompt["id"], "text": text, "short": short, "split": split})
    return entries
