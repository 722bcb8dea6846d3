"""What the Design page shows of a draft: the values of its fields, and what follows from them."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import yaml

from app.design.check import Examination, examine
from app.design.draft import Draft, fact_count, find_relation, new_draft, typed_rows
from app.design.estimate import estimate_for
from app.design.facts_table import table_marks, table_value
from app.design.fields import LOSSES
from app.design.form import form_values, prompt_languages
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.words import language_name
from engine.checks import Problem, shorten
from engine.corpus.names import generate_facts
from engine.corpus.relations import load_relations
from engine.corpus.sentences import stage1_sentences, stage2_sentences
from engine.experiment import Experiment, Relation
from storage.drafts import DraftStore
from storage.runs import list_runs

EARLIER_RUNS = 30
EXAMPLES = 2
SHOWN_RELATIONS = 3
MAX_TABS = 1000
# Writing YAML takes a second for thousands of facts: more than this only when the panel is opened.
LIVE_YAML_FACTS = 300
SAVED = '<div class="lab saved"><p class="small muted">Draft saved at {}</p></div>'
NO_YAML = "# Comes as soon as nothing is left to mend."
LATER_YAML = "# Many facts: close and open this panel to see the present state."


@dataclass(frozen=True)
class Screen:
    """What one tab of a browser shows: whose draft, which of its relations, its prompts of which language."""

    draft_id: str
    tab: str = ""
    relation_id: str = ""
    language: str = ""

    @classmethod
    def read(cls, draft_id: str, text: str) -> Screen:
        """The screen by the text that the page keeps beside its fields: `RELATION LANGUAGE TAB`."""
        relation_id, language, tab = (*text.split(" "), "", "", "")[:3]
        return cls(draft_id, tab, relation_id, language)

    @property
    def text(self) -> str:
        """What `read` reads."""
        return f"{self.relation_id} {self.language} {self.tab}"

    def on(self, relation_id: str = "", language: str = "") -> Screen:
        """The same tab with another relation."""
        return replace(self, relation_id=relation_id, language=language)


class Shown:
    """Answers of handlers: mappings from a component's name to its update."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.drafts = DraftStore(lambda: lab.db, new_draft)
        self._screens: OrderedDict[str, Screen] = OrderedDict()

    def present(self, screen: Screen) -> Screen:
        """What the tab shows as soon as it has all answers: a request may tell of what it showed just before."""
        return self._screens.get(screen.tab, screen)

    def everything(self, screen: Screen) -> dict[str, Any]:
        """All fields with the draft's values, and all that follows; the first relation where none is named."""
        draft = self.drafts.read(screen.draft_id)
        relation = find_relation(draft, screen.relation_id) or next(iter(draft["relations"]), None)
        relation_id = relation["id"] if relation else ""
        languages = prompt_languages(draft, relation_id)
        language = screen.language if screen.language in languages else languages[0]
        screen = screen.on(relation_id, language)
        self._screens[screen.tab] = screen
        self._screens.move_to_end(screen.tab)
        if len(self._screens) > MAX_TABS:
            self._screens.popitem(last=False)
        answer: dict[str, Any] = dict(form_values(draft, relation_id, language))
        answer |= self.consequences(screen, draft)
        answer |= {
            "draft_id": screen.draft_id,
            "editing": screen.text,
            "language": gr.update(choices=[(language_name(x), x) for x in languages], value=language),
            "import_report": "",
            "file_report": "",
            "preset": None,
            "earlier": gr.update(choices=self._earlier_runs(), value=None),
        }
        answer["picker"]["value"] = relation_id or None
        if relation:
            answer["table"]["value"] = table_value(relation_id, relation["facts"], relation["alternatives"])
        return answer

    def consequences(self, screen: Screen, draft: Draft) -> dict[str, Any]:
        """What follows from the draft, without the values of its fields."""
        examination = examine(draft)
        answer = self._verdict(examination)
        answer |= self._editor(draft, screen.relation_id, examination)
        label = self.drafts.undo_label(screen.draft_id)
        used = {r["name"] for r in draft["relations"]}
        answer |= {
            "picker": gr.update(choices=[(_label(r, examination), r["id"]) for r in draft["relations"]]),
            "add_corpus": gr.update(
                choices=[("Add from the corpus …", ""), *((n, n) for n in sorted(load_relations()) if n not in used)],
                value="",
            ),
            "undo": gr.update(visible=label is not None, value=f"Undo {label}" if label else "Undo"),
            "model_row": gr.update(visible=draft["model_kind"] == "other"),
            "lora_row": gr.update(visible=draft["method"] == "lora"),
            "saved": SAVED.format(time.strftime("%H:%M:%S")),
            "yaml": _live_yaml(draft, examination),
        }
        return answer

    def _verdict(self, examination: Examination) -> dict[str, Any]:
        resolved = examination.resolved
        estimate = estimate_for(self.lab, resolved) if resolved else []
        errors, warnings = examination.errors, examination.warnings
        answer: dict[str, Any] = {
            "summary": render("design/summary.html", errors=errors, warnings=warnings, estimate=estimate),
            "start": gr.update(interactive=not errors),
            "examples": examples(resolved),
        }
        for place in ("model", "relations", "stage1", "stage2", "evaluation"):
            problems = examination.at(place) + (examination.at("tuning") if place == "model" else ())
            answer[f"problems.{place}"] = problem_list(problems)
        return answer

    def _editor(self, draft: Draft, relation_id: str, examination: Examination) -> dict[str, Any]:
        relation = find_relation(draft, relation_id)
        if relation is None:
            return {"editor": gr.update(visible=False)}
        own_facts, own_prompts = relation["facts_from"] == "own", relation["prompts_from"] == "own"
        facts = examination.at(f"{relation_id}/facts")
        general = [p for p in facts if p.row is None]
        in_rows = len({p.row for p in facts} - {None})
        rows = len(typed_rows(relation))
        if not rows and own_facts:
            general, more = (
                [],
                "No facts yet: type them, paste rows from a spreadsheet into the table, or upload a file.",
            )
        else:
            more = f"{in_rows:,} of {rows:,} rows have a remark." if in_rows else ""
        return {
            "editor": gr.update(visible=True),
            "generate_row": gr.update(visible=not own_facts),
            "copy_generated": gr.update(visible=not own_facts),
            "own_facts": gr.update(visible=own_facts),
            "own_prompts": gr.update(visible=own_prompts),
            "generated": "" if own_facts else generated_sample(relation, draft["values"]["seed"]),
            "corpus_prompts": "" if own_prompts else corpus_prompt_sample(relation),
            "table": gr.update(marks=table_marks(facts)),
            "problems.relation": problem_list(examination.at(f"{relation_id}/relation")),
            "problems.facts": problem_list(general, more=more),
            "problems.prompts": problem_list(examination.at(f"{relation_id}/prompts")),
        }

    def _earlier_runs(self) -> list[tuple[str, str]]:
        runs = list_runs(self.lab.db, limit=EARLIER_RUNS)
        return [(f"{shorten(run.name)} · {run.created_at[:10]} · {run.id}", run.id) for run in runs]


def _label(relation: dict[str, Any], examination: Examination) -> str:
    """A relation in the list: its name, how many facts, and a sign when something is wrong with it."""
    mark = "  ✕" if any(f.place.startswith(f"{relation['id']}/") for f in examination.errors) else ""
    return f"{shorten(relation['name'], 30) or 'unnamed'} · {fact_count(relation):,}{mark}"


def _live_yaml(draft: Draft, examination: Examination) -> str:
    if sum(len(r["facts"]) for r in draft["relations"]) > LIVE_YAML_FACTS:
        return LATER_YAML
    return full_yaml(examination)


def full_yaml(examination: Examination) -> str:
    """The experiment as YAML that `Experiment.from_text` reads."""
    if examination.experiment is None:
        return NO_YAML
    try:
        return examination.experiment.to_yaml()
    except yaml.YAMLError:
        return "# Some text cannot be written as YAML."


def problem_list(problems: Sequence[Problem], limit: int = 8, more: str = "") -> str:
    """Problems as a list under the field they belong to; empty when there are none."""
    return part("design/problem_list", problems=problems, limit=limit, more=more) if problems or more else ""


def examples(resolved: Experiment | None) -> str:
    """The first sequences of both stages as the model will see them, and how the facts are split."""
    relations = [] if resolved is None else [_example(resolved, r) for r in resolved.relations[:SHOWN_RELATIONS]]
    loss = next((words for words, value in LOSSES if resolved and value == resolved.stage2.loss), "")
    return render("design/examples.html", relations=relations, loss=loss)


def _example(experiment: Experiment, relation: Relation) -> dict[str, Any]:
    return {
        "name": relation.name,
        "total": len(relation.explicit_facts),
        "shown": len(experiment.stage2_facts(relation)),
        "held_out": len(experiment.held_out_facts(relation)),
        "stage1": [s.text.partition(relation.key_token) for s in stage1_sentences(relation)[:EXAMPLES]],
        "stage2": [s.halves for s in stage2_sentences(experiment, relation)[:EXAMPLES]],
    }


def generated_sample(relation: dict[str, Any], seed: Any) -> str:
    """The first facts that the corpus will invent for a relation."""
    try:
        pairs = generate_facts(relation["name"].strip(), int(seed or 0), relation["generate"] or 0)[:3]
    except (ValueError, TypeError):
        pairs = []
    return part("design/generated", pairs=pairs)


def corpus_prompt_sample(relation: dict[str, Any]) -> str:
    """What the corpus asks about a relation: the first prompt of each split, and how many there are."""
    data = load_relations().get(relation["name"].strip())
    if data is None:
        return part("design/corpus_prompts", rows=[], counts="")
    first: dict[str, str] = {}
    by_split: Counter[str] = Counter()
    for prompt in data.iter_prompts():
        first.setdefault(prompt.split, prompt.text)
        by_split[prompt.split] += prompt.language == "en"
    counts = ", ".join(f"{n} {split}" for split, n in by_split.items())
    languages = ", ".join(language_name(x) for x in data.prompts.train)
    return part(
        "design/corpus_prompts", rows=list(first.items()), counts=f"In each language {counts} prompts: {languages}."
    )
