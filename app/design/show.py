"""What the Design page shows of a draft: the values of its fields, and what follows from them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gradio as gr
import yaml

from app.design.check import Examination, examine, grouped
from app.design.draft import WITH_REASONING, Draft, find_relation, model_of, names_of, new_draft
from app.design.draft_facts import fact_count, typed_rows
from app.design.estimate import estimate_for
from app.design.facts_table import table_marks, table_value
from app.design.fields import LOSSES
from app.design.form import form_values, prompt_languages
from app.design.hub_models import hub_model
from app.design.hub_sizes import HubSizes
from app.design.imports import shown_problems
from app.design.tabs import Screen, present
from app.design.text import pieces, text_words
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.words import language_name
from engine.checks import Problem, clean, shorten
from engine.corpus.names import generate_facts
from engine.corpus.relations import load_relations
from engine.corpus.sentences import stage1_sentences, stage2_sentences
from engine.experiment import Experiment
from engine.relation import Relation
from storage.drafts import DraftStore
from storage.runs import list_runs

EARLIER_RUNS = 30
EXAMPLES = 2
SHOWN_RELATIONS = 3
SHOWN_PROBLEMS = 8
# Writing YAML takes a second for thousands of facts: more than this only when the panel is opened.
LIVE_YAML_FACTS = 300
SAVED = '<div class="lab saved"><p class="small muted">Draft saved at {}</p></div>'
NO_YAML = "# Comes as soon as nothing is left to mend."
LATER_YAML = "# Many facts: close and open this panel to see the present state."


class Shown:
    """Answers of handlers: mappings from a component's name to its update."""

    def __init__(self, lab: Lab, sizes: HubSizes | None = None) -> None:
        """`sizes`: what models of the hub take to download; by default nobody is asked."""
        self.lab, self.sizes = lab, sizes or HubSizes()
        self.drafts = DraftStore(lambda: lab.db, new_draft)

    def everything(self, screen: Screen) -> dict[str, Any]:
        """All fields with the draft's values, and all that follows; the first relation where none is named."""
        return self._answer(screen, anew=True) | {"file_report": "", "preset": None, "paper_model": None}

    def outcome(self, screen: Screen) -> dict[str, Any]:
        """What follows from an edit, and the fields that it, or another tab, changed."""
        return self._answer(screen, anew=False)

    def _answer(self, screen: Screen, anew: bool) -> dict[str, Any]:
        with self.drafts.change(screen.draft_id, tab=screen.tab) as change:
            draft = change.draft
            shown = change.tab.get("shows") if not anew else None
            wanted = screen.on(*shown) if shown else screen
            if find_relation(draft, wanted.relation_id) is None:
                anew = anew or bool(draft["relations"] or wanted.relation_id)
                wanted = wanted.on(draft["relations"][0]["id"] if draft["relations"] else "")
            languages = prompt_languages(draft, wanted.relation_id)
            if wanted.language not in languages:
                wanted = wanted.on(wanted.relation_id, languages[0])
            told, rows_needed, sentences = present(change, wanted, anew)
            taken = change.tab.get("rows", 0)
        answer: dict[str, Any] = dict(form_values(draft, told.relation_id, told.language))
        answer |= self._consequences(told, draft, taken)
        answer["editing"] = told.text
        relation = find_relation(draft, told.relation_id)
        if sentences:
            answer["news"] = part("design/news", time=time.strftime("%H:%M"), sentences=sentences)
        if anew:
            answer |= {
                "draft_id": told.draft_id,
                "language": gr.update(choices=[(language_name(x), x) for x in languages], value=told.language),
                "earlier": gr.update(choices=self._earlier_runs(), value=None),
                "import_report": "",
            }
            answer["picker"]["value"] = told.relation_id or None
        if relation and rows_needed:
            rows = table_value(told.relation_id, relation["facts"], relation["alternatives"])
            answer["table"]["value"] = rows | {"taken": taken} | told.order
        return answer

    def _consequences(self, screen: Screen, draft: Draft, taken: int) -> dict[str, Any]:
        """What follows from the draft, without the values of its fields."""
        examination = examine(draft)
        answer = self._verdict(examination)
        answer |= self._editor(draft, screen, examination, taken)
        label = self.drafts.undo_label(screen.draft_id, screen.tab)
        used = {r["name"] for r in draft["relations"]}
        answer |= {
            "picker": gr.update(choices=[(_label(r, examination), r["id"]) for r in draft["relations"]]),
            "add_corpus": gr.update(
                choices=[("Add from the corpus …", ""), *((n, n) for n in sorted(load_relations()) if n not in used)],
                value="",
            ),
            "undo": gr.update(visible=label is not None, value=f"Undo {label}" if label else "Undo"),
            "hub_model": hub_model(model_of(draft), examination.resolved) if draft["model_kind"] == "other" else "",
            "model_row": gr.update(visible=draft["model_kind"] == "other"),
            "lora_row": gr.update(visible=draft["method"] == "lora"),
            "saved": SAVED.format(time.strftime("%H:%M:%S")),
            "yaml": _live_yaml(draft, examination),
        }
        return answer

    def _verdict(self, examination: Examination) -> dict[str, Any]:
        resolved = examination.resolved
        told = estimate_for(self.lab, resolved, self.sizes) if resolved else None
        errors, warnings = examination.errors, examination.warnings
        answer: dict[str, Any] = {
            "summary": render("design/summary.html", errors=grouped(errors), warnings=grouped(warnings), told=told),
            "start": gr.update(interactive=not errors),
            "examples": examples(resolved),
            "text_words": part("design/text_words", words=text_words(resolved) if resolved else ""),
        }
        for place in ("model", "relations", "stage1", "stage2", "evaluation"):
            problems = examination.at(place) + (examination.at("tuning") if place == "model" else ())
            answer[f"problems.{place}"] = problem_list(problems)
        return answer

    def _editor(self, draft: Draft, screen: Screen, examination: Examination, taken: int) -> dict[str, Any]:
        relation_id = screen.relation_id
        relation = find_relation(draft, relation_id)
        if relation is None:
            return {"editor": gr.update(visible=False)}
        own_facts, own_prompts = relation["facts_from"] == "own", relation["prompts_from"] == "own"
        facts, found = examination.at(f"{relation_id}/facts"), examination.found(f"{relation_id}/import")
        imported = shown_problems(relation, origin=True) if found else []
        general = [p for p in facts if p.row is None]
        in_rows = len({p.row for p in (*facts, *imported)} - {None})
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
            "generated": "" if own_facts else generated_sample(draft, relation, examination.resolved),
            "corpus_prompts": "" if own_prompts else corpus_prompt_sample(relation),
            "table": gr.update(marks=table_marks([*facts, *imported], relation["facts"], taken) | screen.order),
            "import_panel": gr.update(visible=bool(found)),
            "import_problems": part("design/import_problems", groups=grouped(found), limit=SHOWN_PROBLEMS),
            "import_drop": gr.update(visible=any(p.row and p.severity == "error" for p in imported)),
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


def problem_list(problems: Sequence[Problem], limit: int = SHOWN_PROBLEMS, more: str = "") -> str:
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
        "stage1": [pieces(experiment, s, relation.key_token) for s in stage1_sentences(relation)[:EXAMPLES]],
        "stage2": [pieces(experiment, s) for s in stage2_sentences(experiment, relation)[:EXAMPLES]],
    }


def generated_sample(draft: Draft, relation: dict[str, Any], resolved: Experiment | None = None) -> str:
    """The first facts that the corpus will invent for a relation, and what names they have.

    Those about another relation's objects are known once the experiment is written out (`resolved`).
    """
    names, seed = names_of(draft, relation), draft["values"]["seed"]
    try:
        if relation.get("subjects_of"):
            written = next(r for r in resolved.relations if r.name == clean(relation["name"])) if resolved else None
            pairs = [(fact.subject, fact.object) for fact in written.explicit_facts[:3]] if written else []
            return part("design/generated", pairs=pairs, names=names)
        pairs = generate_facts(relation["name"].strip(), int(seed or 0), relation["generate"] or 0, names)[:3]
    except (ValueError, TypeError):
        pairs = []
    return part("design/generated", pairs=pairs, names=names)


def corpus_prompt_sample(relation: dict[str, Any]) -> str:
    """What the corpus asks about a relation: the first prompt of each split, and how many there are."""
    data = load_relations().get(relation["name"].strip())
    if data is None:
        return part("design/corpus_prompts", rows=[], counts="")
    first: dict[str, str] = {}
    by_split: Counter[str] = Counter()
    more = data.iter_reasoning() if relation["prompts_from"] == WITH_REASONING else ()
    for prompt in (*data.iter_prompts(), *more):
        split = "2-hop" if prompt.split == "two_hop" else prompt.split
        first.setdefault(split, prompt.text)
        by_split[split] += prompt.language == "en"
    counts = ", ".join(f"{n} {split}" for split, n in by_split.items())
    languages = ", ".join(language_name(x) for x in data.prompts.train)
    return part(
        "design/corpus_prompts", rows=list(first.items()), counts=f"In each language {counts} prompts: {languages}."
    )
