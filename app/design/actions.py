"""What happens on the Design page: each action takes over what was typed, changes the draft, and shows the outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.design import draft as drafts
from app.design.check import examine
from app.design.draft import Draft, find_relation
from app.design.form import commit, form_values, language_code
from app.design.show import Screen, Shown, full_yaml
from app.design.store import new_draft_id, remembered, valid_id
from app.design.views import problem_list
from engine.checks import Problem, shorten
from engine.experiment import Experiment
from engine.presets import load_preset as read_preset

Answer = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What every event of the page brings: which screen its fields belong to, what they hold, and since when."""

    screen: Screen
    typed: Sequence[Any]
    stamp: float

    @property
    def draft_id(self) -> str:
        """Whose draft."""
        return self.screen.draft_id

    @property
    def relation_id(self) -> str:
        """The relation that the fields show."""
        return self.screen.relation_id


def open_page(shown: Shown, draft_id: Any, clone: str) -> Answer:
    """Show the browser's draft, or the copy of a run that the address asks for."""
    draft_id = draft_id if valid_id(draft_id) else new_draft_id()
    if clone:
        _clone(shown, draft_id, clone)
    return shown.everything(Screen(draft_id, new_draft_id()))


def edit(shown: Shown, request: Request) -> Answer:
    """Take over the fields and show what follows."""
    with shown.store.change(request.draft_id) as draft:
        commit(draft, request.relation_id, request.screen.language, request.typed, request.stamp)
        drafts.adapt(draft)
    return outcome(shown, request, draft)


def outcome(shown: Shown, request: Request, draft: Draft) -> Answer:
    """What follows from an edit, and the fields that it set to fit."""
    screen = shown.present(request.screen)
    return form_values(draft, screen.relation_id, screen.language) | shown.consequences(screen, draft)


def pick(shown: Shown, request: Request, relation_id: Any) -> Answer:
    """Show another relation."""
    take_over(shown, request)
    return shown.everything(request.screen.on(str(relation_id or "")))


def pick_language(shown: Shown, request: Request, language: Any) -> Answer:
    """Show the prompts of another language, or add one."""
    take_over(shown, request)
    code = language_code(language)
    if code is None:
        gr.Warning("A language is a code such as fr or pt-BR.")
        return shown.everything(request.screen)
    with shown.store.change(request.draft_id) as draft:
        relation = find_relation(draft, request.relation_id)
        if relation:
            relation["prompts"].setdefault(code, dict.fromkeys(drafts.SPLITS, ""))
    return shown.everything(request.screen.on(request.relation_id, code))


def add_corpus(shown: Shown, request: Request, name: Any) -> Answer:
    """Add a relation of the corpus."""
    if not name:
        return {}
    return _add(shown, request, lambda draft: drafts.corpus_relation(draft, str(name)))


def add_own(shown: Shown, request: Request) -> Answer:
    """Add a relation without anything in it."""
    return _add(shown, request, drafts.own_relation)


def _add(shown: Shown, request: Request, add: Callable[[Draft], dict[str, Any]]) -> Answer:
    with shown.store.change(request.draft_id) as draft:
        commit(draft, request.relation_id, request.screen.language, request.typed, request.stamp)
        relation = add(draft)
        drafts.adapt(draft)
    return shown.everything(request.screen.on(relation["id"]))


def remove(shown: Shown, request: Request) -> Answer:
    """Remove the relation that is shown."""
    draft = take_over(shown, request)
    relation = find_relation(draft, request.relation_id)
    if relation is None:
        return {}

    def change(draft: Draft) -> None:
        draft["relations"] = [r for r in draft["relations"] if r["id"] != request.relation_id]
        drafts.adapt(draft)

    remembered(shown.store, request.draft_id, f"removing ‘{shorten(relation['name'], 20)}’", change)
    return shown.everything(request.screen.on())


def load_preset(shown: Shown, request: Request, name: Any) -> Answer:
    """Start from a preset."""
    if not name:
        return {}
    take_over(shown, request)
    return _replace(shown, request, f"loading ‘{name}’", drafts.from_experiment(read_preset(str(name))))


def load_run(shown: Shown, request: Request, run_id: Any) -> Answer:
    """Start from a copy of an earlier run."""
    if not run_id:
        return {}
    take_over(shown, request)
    _clone(shown, request.draft_id, str(run_id))
    return shown.everything(request.screen.on())


def load_text(shown: Shown, request: Request, text: Any) -> Answer:
    """Start from a description in YAML or JSON."""
    take_over(shown, request)
    try:
        draft = drafts.from_experiment(Experiment.from_text(str(text or "")))
    except ValueError as error:
        return {
            "file_report": problem_list(
                [Problem(p) for p in str(error).replace("Field required", "is missing").split("; ")]
            )
        }
    return _replace(shown, request, "loading the file", draft) | {"file_panel": gr.update(visible=False)}


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
    take_over(shown, request)
    return _replace(shown, request, "starting over", drafts.new_draft())


def undo(shown: Shown, request: Request) -> Answer:
    """Take the last large step back."""
    shown.store.undo(request.draft_id)
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
    run = shown.store.start(request.draft_id, resolved, draft.get("cloned_from"))
    return {"go": run.id}


def take_over(shown: Shown, request: Request) -> Draft:
    """The draft with what the fields hold."""
    with shown.store.change(request.draft_id) as draft:
        if commit(draft, request.relation_id, request.screen.language, request.typed, request.stamp):
            drafts.adapt(draft)
    return draft


def _replace(shown: Shown, request: Request, label: str, new: Draft) -> Answer:
    def change(draft: Draft) -> None:
        draft.clear()
        draft.update(new)

    remembered(shown.store, request.draft_id, label, change)
    return shown.everything(request.screen.on())


def _clone(shown: Shown, draft_id: str, run_id: str) -> None:
    run = shown.store.lab.run(run_id)
    if run is None:
        gr.Warning("The run to copy is no longer there.")
        return
    new = drafts.from_experiment(Experiment.from_data(run.experiment)) | {"cloned_from": run.id}

    def change(draft: Draft) -> None:
        draft.clear()
        draft.update(new)

    remembered(shown.store, draft_id, f"copying run {run.id}", change)
