"""What happens with a relation's own facts: typing into the table, pasting, uploading, clearing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.design import draft as drafts
from app.design.actions import Answer, Request, outcome, take_over
from app.design.draft import Draft, find_relation
from app.design.facts_table import MAX_ROWS, read_edit
from app.design.form import commit
from app.design.show import Shown
from app.design.store import remembered
from app.design.views import problem_list
from app.shared.words import sentence
from engine.checks import Problem
from engine.corpus.importing import ImportedFacts, read_facts
from engine.corpus.names import generate_facts
from engine.experiment import Fact


def table_rows(shown: Shown, request: Request, event: gr.EventData) -> Answer:
    """Take over the rows of the facts table."""
    told = read_edit(event)
    if told is None:
        return {}
    if told.removed:
        shown.store.remember(request.draft_id, f"removing {told.removed}")
    with shown.store.change(request.draft_id) as draft:
        commit(draft, request.relation_id, request.screen.language, request.typed, request.stamp)
        drafts.set_rows(find_relation(draft, told.relation), told.rows, request.stamp)
        drafts.adapt(draft)
    return outcome(shown, request, draft)


def table_paste(shown: Shown, request: Request, event: gr.EventData) -> Answer:
    """Insert rows that were pasted into the facts table."""
    told = read_edit(event)
    if told is None:
        return {}
    with shown.store.change(request.draft_id) as draft:
        commit(draft, request.relation_id, request.screen.language, request.typed, request.stamp)
        drafts.set_rows(find_relation(draft, told.relation), told.rows, request.stamp)
    return _import(shown, request, read_facts(told.text), told.at)


def paste_facts(shown: Shown, request: Request, text: Any, replace: bool) -> Answer:
    """Read the paste box."""
    take_over(shown, request)
    answer = _import(shown, request, read_facts(str(text or "")), replace=replace)
    return answer | ({"paste_text": "", "paste_panel": gr.update(visible=False)} if "table" in answer else {})


def upload_facts(shown: Shown, request: Request, file: Any) -> Answer:
    """Read an uploaded file of facts; they go below what is in the table."""
    take_over(shown, request)
    path = Path(str(file))
    return _import(shown, request, read_facts(path.read_bytes(), path.name)) | {"upload": None}


def clear_facts(shown: Shown, request: Request) -> Answer:
    """Empty the facts table."""
    return _with_relation(shown, request, "clearing the table", lambda relation, _: drafts.set_facts(relation, ()))


def copy_generated(shown: Shown, request: Request) -> Answer:
    """Write the invented facts into the table, to be edited."""

    def copy(relation: dict[str, Any], draft: Draft) -> None:
        pairs = generate_facts(relation["name"].strip(), draft["values"]["seed"] or 0, relation["generate"] or 0)
        drafts.set_facts(relation, [Fact(subject=s, object=o) for s, o in pairs])
        relation["facts_from"] = "own"

    return _with_relation(shown, request, "copying the facts", copy)


def _with_relation(
    shown: Shown, request: Request, label: str, change: Callable[[dict[str, Any], Draft], None]
) -> Answer:
    """Change the relation that is shown, in a way that can be undone. A ValueError changes nothing and is told."""
    take_over(shown, request)

    def change_draft(draft: Draft) -> None:
        relation = find_relation(draft, request.relation_id)
        if relation:
            change(relation, draft)
            drafts.adapt(draft)

    try:
        remembered(shown.store, request.draft_id, label, change_draft)
    except ValueError as error:
        gr.Warning(str(error))
    return shown.everything(request.screen)


def _import(
    shown: Shown, request: Request, imported: ImportedFacts, place: int | None = None, replace: bool = False
) -> Answer:
    """Put facts into the table at `place` (at the end without one), or in its place; report how they were read.

    A file with a relation column goes to the relations of those names, which are added where there are none.
    """
    if not imported.facts:
        return {"import_report": problem_list(imported.reading)}
    if len(imported.facts) > MAX_ROWS:
        problem = Problem(f"{len(imported.facts):,} facts are more than the table holds ({MAX_ROWS:,}): split them up")
        return {"import_report": problem_list([problem])}

    def change(draft: Draft) -> None:
        groups = imported.by_relation
        for name, facts in groups.items():
            here = find_relation(draft, request.relation_id)
            relation = here if len(groups) == 1 and here else _relation_called(draft, name)
            relation["facts_from"] = "own"
            _put(relation, facts, place if relation is here else None, replace)
        drafts.adapt(draft)

    remembered(shown.store, request.draft_id, "the import", change)
    notes = [f"{len(imported.facts):,} facts read.", *map(sentence, imported.notes)]
    report = problem_list(imported.reading, more=" ".join(notes))
    return shown.everything(request.screen) | {"import_report": report}


def _relation_called(draft: Draft, name: str) -> dict[str, Any]:
    for relation in draft["relations"]:
        if relation["name"].strip().casefold() == name.casefold():
            return relation
    relation = drafts.own_relation(draft)
    relation["name"] = name or relation["name"]
    return relation


def _put(relation: dict[str, Any], facts: Sequence[Fact], place: int | None, replace: bool) -> None:
    if replace:
        drafts.set_facts(relation, facts)
        return
    end = len(drafts.typed_rows(relation))
    del relation["facts"][end:]
    relation["options"] = []
    drafts.add_facts(relation, facts, end if place is None else min(place, end))
