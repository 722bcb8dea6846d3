"""What happens on the Design page: each action takes over what was typed, changes the draft, and shows the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.design import draft as drafts
from app.design.check import examine
from app.design.draft import Draft, find_relation
from app.design.facts_table import MAX_ROWS, FactsEdit, read_edit
from app.design.form import commit, form_values, language_code
from app.design.show import Screen, Shown, full_yaml, problem_list
from app.shared.words import sentence
from engine.checks import Problem, shorten
from engine.corpus.importing import ImportedFacts, read_facts
from engine.corpus.names import generate_facts
from engine.experiment import Experiment, Fact
from engine.presets import load_preset as read_preset
from storage.drafts import new_draft_id, valid_id

Answer = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What every event of the page brings: which screen its fields belong to, what they hold, and since when."""

    screen: Screen
    typed: Sequence[Any]
    stamp: float


def take_over(shown: Shown, request: Request) -> Draft:
    """The draft with what the fields hold."""
    with shown.drafts.change(request.screen.draft_id) as draft:
        commit(draft, request.screen.relation_id, request.screen.language, request.typed, request.stamp)
        drafts.adapt(draft)
    return draft


@contextmanager
def changing(shown: Shown, request: Request, undo: str = "") -> Iterator[Draft]:
    """The draft with what the fields hold, to be changed in place. `undo`: what is done, if it can be undone.

    When the block raises, only what the fields hold is kept.
    """
    take_over(shown, request)
    with shown.drafts.change(request.screen.draft_id, undo) as draft:
        yield draft
        drafts.adapt(draft)


def outcome(shown: Shown, request: Request, draft: Draft) -> Answer:
    """What follows from an edit, and the fields that it set to fit."""
    screen = shown.present(request.screen)
    return form_values(draft, screen.relation_id, screen.language) | shown.consequences(screen, draft)


def open_page(shown: Shown, draft_id: Any, clone: str) -> Answer:
    """Show the browser's draft, or the copy of a run that the address asks for."""
    draft_id = draft_id if valid_id(draft_id) else new_draft_id()
    if clone:
        _clone(shown, draft_id, clone)
    return shown.everything(Screen(draft_id, new_draft_id()))


def edit(shown: Shown, request: Request) -> Answer:
    """Take over the fields and show what follows."""
    return outcome(shown, request, take_over(shown, request))


def pick(shown: Shown, request: Request, relation_id: Any) -> Answer:
    """Show another relation."""
    take_over(shown, request)
    return shown.everything(request.screen.on(str(relation_id or "")))


def pick_language(shown: Shown, request: Request, language: Any) -> Answer:
    """Show the prompts of another language, or add one."""
    code = language_code(language)
    with changing(shown, request) as draft:
        relation = find_relation(draft, request.screen.relation_id)
        if code and relation:
            relation["prompts"].setdefault(code, dict.fromkeys(drafts.SPLITS, ""))
    if code is None:
        gr.Warning("A language is a code such as fr or pt-BR.")
        return shown.everything(request.screen)
    return shown.everything(request.screen.on(request.screen.relation_id, code))


def add_corpus(shown: Shown, request: Request, name: Any) -> Answer:
    """Add a relation of the corpus."""
    return _add(shown, request, lambda draft: drafts.corpus_relation(draft, str(name))) if name else {}


def add_own(shown: Shown, request: Request) -> Answer:
    """Add a relation without anything in it."""
    return _add(shown, request, drafts.own_relation)


def _add(shown: Shown, request: Request, add: Callable[[Draft], dict[str, Any]]) -> Answer:
    with changing(shown, request) as draft:
        relation = add(draft)
    return shown.everything(request.screen.on(relation["id"]))


def remove(shown: Shown, request: Request) -> Answer:
    """Remove the relation that is shown."""
    relation = find_relation(take_over(shown, request), request.screen.relation_id)
    if relation is None:
        return {}
    with changing(shown, request, f"removing ‘{shorten(relation['name'], 20)}’") as draft:
        draft["relations"] = [r for r in draft["relations"] if r["id"] != relation["id"]]
    return shown.everything(request.screen.on())


def load_preset(shown: Shown, request: Request, name: Any) -> Answer:
    """Start from a preset."""
    return _replace(shown, request, f"loading ‘{name}’", read_preset(str(name))) if name else {}


def load_run(shown: Shown, request: Request, run_id: Any) -> Answer:
    """Start from a copy of an earlier run."""
    if not run_id:
        return {}
    take_over(shown, request)
    _clone(shown, request.screen.draft_id, str(run_id))
    return shown.everything(request.screen.on())


def load_text(shown: Shown, request: Request, text: Any) -> Answer:
    """Start from a description in YAML or JSON."""
    try:
        experiment = Experiment.from_text(str(text or ""))
    except ValueError as error:
        take_over(shown, request)
        sentences = str(error).replace("Field required", "is missing").split("; ")
        return {"file_report": problem_list([Problem(words) for words in sentences])}
    return _replace(shown, request, "loading the file", experiment) | {"file_panel": gr.update(visible=False)}


def load_file(shown: Shown, request: Request, file: Any) -> Answer:
    """Start from a file with a description."""
    try:
        text = Path(str(file)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        problem = Problem("the file is not text in UTF-8: choose a .yaml or .json file")
        return {"file_report": problem_list([problem]), "file_upload": None}
    return load_text(shown, request, text) | {"file_upload": None}


def start_over(shown: Shown, request: Request) -> Answer:
    """Go back to an empty design."""
    return _replace(shown, request, "starting over", None)


def _replace(shown: Shown, request: Request, label: str, experiment: Experiment | None) -> Answer:
    with changing(shown, request, label) as draft:
        draft.clear()
        draft.update(drafts.from_experiment(experiment) if experiment else drafts.new_draft())
    return shown.everything(request.screen.on())


def _clone(shown: Shown, draft_id: str, run_id: str) -> None:
    run = shown.lab.run(run_id)
    if run is None:
        gr.Warning("The run to copy is no longer there.")
        return
    new = drafts.from_experiment(Experiment.from_data(run.experiment)) | {"cloned_from": run.id}
    with shown.drafts.change(draft_id, f"copying run {run.id}") as draft:
        draft.clear()
        draft.update(new)


def undo(shown: Shown, request: Request) -> Answer:
    """Take the last large step back."""
    shown.drafts.undo(request.screen.draft_id)
    return shown.everything(request.screen)


def show_yaml(shown: Shown, request: Request) -> Answer:
    """Write the whole description out."""
    return {"yaml": full_yaml(examine(take_over(shown, request)))}


def start(shown: Shown, request: Request) -> Answer:
    """Queue the run, unless something is left to mend."""
    draft = take_over(shown, request)
    resolved = examine(draft).resolved
    if resolved is None:
        gr.Warning("Something is left to mend first.")
        return shown.everything(request.screen)
    body = resolved.model_dump(mode="json")
    return {"go": shown.drafts.start(request.screen.draft_id, body, draft.get("cloned_from")).id}


def table_rows(shown: Shown, request: Request, event: gr.EventData) -> Answer:
    """Take over the rows of the facts table."""
    rows = read_edit(event)
    return outcome(shown, request, _take_rows(shown, request, rows)) if rows else {}


def table_paste(shown: Shown, request: Request, event: gr.EventData) -> Answer:
    """Insert rows that were pasted into the facts table."""
    rows = read_edit(event)
    if rows is None:
        return {}
    _take_rows(shown, request, rows)
    return _import(shown, request, read_facts(rows.text), rows.at)


def _take_rows(shown: Shown, request: Request, edit: FactsEdit) -> Draft:
    with changing(shown, request, f"removing {edit.removed}" if edit.removed else "") as draft:
        drafts.set_rows(find_relation(draft, edit.relation), edit.rows, request.stamp)
    return draft


def paste_facts(shown: Shown, request: Request, text: Any, replace: bool) -> Answer:
    """Read the paste box."""
    answer = _import(shown, request, read_facts(str(text or "")), replace=replace)
    return answer | ({"paste_text": "", "paste_panel": gr.update(visible=False)} if "table" in answer else {})


def upload_facts(shown: Shown, request: Request, file: Any) -> Answer:
    """Read an uploaded file of facts; they go below what is in the table."""
    path = Path(str(file))
    return _import(shown, request, read_facts(path.read_bytes(), path.name)) | {"upload": None}


def clear_facts(shown: Shown, request: Request) -> Answer:
    """Empty the facts table."""
    with changing(shown, request, "clearing the table") as draft:
        if relation := find_relation(draft, request.screen.relation_id):
            drafts.set_facts(relation, ())
    return shown.everything(request.screen)


def copy_generated(shown: Shown, request: Request) -> Answer:
    """Write the invented facts into the table, to be edited."""
    try:
        with changing(shown, request, "copying the facts") as draft:
            if relation := find_relation(draft, request.screen.relation_id):
                seed, number = draft["values"]["seed"] or 0, relation["generate"] or 0
                pairs = generate_facts(relation["name"].strip(), seed, number)
                drafts.set_facts(relation, [Fact(subject=s, object=o) for s, o in pairs])
                relation["facts_from"] = "own"
    except ValueError as error:
        gr.Warning(str(error))
    return shown.everything(request.screen)


def _import(
    shown: Shown, request: Request, imported: ImportedFacts, place: int | None = None, replace: bool = False
) -> Answer:
    """Put facts into the table at `place` (at the end without one), or in its place; report how they were read.

    A file with a relation column goes to the relations of those names, which are added where there are none.
    """
    count = len(imported.facts)
    if not count or count > MAX_ROWS:
        take_over(shown, request)
        too_many = Problem(f"{count:,} facts are more than the table holds ({MAX_ROWS:,}): split them up")
        return {"import_report": problem_list([too_many] if count else imported.reading)}
    with changing(shown, request, "the import") as draft:
        groups = imported.by_relation
        for name, facts in groups.items():
            here = find_relation(draft, request.screen.relation_id)
            relation = here if len(groups) == 1 and here else drafts.relation_called(draft, name)
            relation["facts_from"] = "own"
            if replace:
                drafts.set_facts(relation, facts)
            else:
                drafts.add_facts(relation, facts, place if relation is here else None)
    notes = [f"{count:,} facts read.", *(sentence(note) for note in imported.notes)]
    report = problem_list(imported.reading, more=" ".join(notes))
    return shown.everything(request.screen) | {"import_report": report}
