"""What happens on the Design page: each action takes over what was typed, changes the draft, and shows the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from app.design import draft as drafts
from app.design.check import examine
from app.design.draft import Draft, find_relation
from app.design.form import language_code
from app.design.shorter import values_of
from app.design.show import Shown, full_yaml, problem_list
from app.design.tabs import Request, Screen, take_fields
from app.shared.words import sentence
from engine.checks import Problem, shorten
from engine.execution.later import later_experiment
from engine.experiment import Experiment
from engine.models.paper_models import PAPER_MODELS
from engine.presets import EXPERIMENTS
from storage.drafts import new_draft_id, valid_id

Answer = dict[str, Any]


def take_over(shown: Shown, request: Request) -> Draft:
    """The draft with what was changed in the fields."""
    with shown.drafts.change(request.screen.draft_id, tab=request.screen.tab) as change:
        take_fields(change, request)
        drafts.adapt(change.draft)
    return change.draft


@contextmanager
def changing(shown: Shown, request: Request, undo: str = "") -> Iterator[Draft]:
    """The draft with what was changed in the fields, to be changed in place. `undo`: what is done, if it can be undone.

    When the block raises, only what was changed in the fields is kept.
    """
    take_over(shown, request)
    with shown.drafts.change(request.screen.draft_id, undo, request.screen.tab) as change:
        yield change.draft
        drafts.adapt(change.draft)


def open_page(shown: Shown, draft_id: Any, clone: str = "", preset: str = "", later: str = "") -> Answer:
    """Show the browser's draft, or what the address asks for in its place: the copy of a run, a preset, or facts that
    come later to a run's model."""
    draft_id = draft_id if valid_id(draft_id) else new_draft_id()
    screen = Screen(draft_id, new_draft_id())
    if clone:
        _clone(shown, draft_id, screen.tab, clone)
    elif later:
        _teach_more(shown, draft_id, screen.tab, later)
    elif preset in EXPERIMENTS.names():
        _put(shown, draft_id, screen.tab, f"loading ‘{preset}’", drafts.from_experiment(EXPERIMENTS.load(preset)))
    return shown.everything(screen)


def edit(shown: Shown, request: Request) -> Answer:
    """Take over the fields and show what follows, and what other tabs changed."""
    take_over(shown, request)
    return shown.outcome(request.screen)


def look(shown: Shown, draft_id: str, text: str) -> int | None:
    """The draft's number where another tab changed it since this one was told; cheap."""
    screen = Screen.read(draft_id, text)
    revision, by = shown.drafts.latest(draft_id)
    return revision if screen.tab and revision > screen.seen and by != screen.tab else None


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


def pick_paper_model(shown: Shown, request: Request, name: Any) -> Answer:
    """Fill in the name of one of the paper's models."""
    if name not in PAPER_MODELS:
        return {}
    with changing(shown, request) as draft:
        draft.update(model_kind="other", model_name=name)
    return shown.everything(request.screen)


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
    return _replace(shown, request, f"loading ‘{name}’", EXPERIMENTS.load(str(name))) if name else {}


def load_run(shown: Shown, request: Request, run_id: Any) -> Answer:
    """Start from a copy of an earlier run."""
    if not run_id:
        return {}
    take_over(shown, request)
    _clone(shown, request.screen.draft_id, request.screen.tab, str(run_id))
    return shown.everything(request.screen.on())


def read_description(text: Any) -> tuple[Experiment | ValueError, list[str]]:
    """The experiment that a description in YAML or JSON describes, or what is wrong; and what was read otherwise."""
    notes: list[str] = []
    try:
        return Experiment.from_text(str(text or ""), notes), notes
    except ValueError as error:
        return error, notes


def read_description_file(file: Any) -> tuple[Experiment | ValueError, list[str]]:
    """The same of a file."""
    try:
        return read_description(Path(str(file)).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return ValueError("the file is not text in UTF-8: choose a .yaml or .json file"), []


def load_description(shown: Shown, request: Request, experiment: Experiment | ValueError, notes: list[str]) -> Answer:
    """Start from a description that was read."""
    if isinstance(experiment, ValueError):
        report = problem_list([Problem(words) for words in str(experiment).split("; ")])
        return edit(shown, request) | {"file_report": report, "file_upload": None}
    said = problem_list([Problem(note, severity="warning") for note in notes])
    panel = {"file_panel": gr.update(visible=bool(notes)), "file_report": said, "file_upload": None}
    return _replace(shown, request, "loading the file", experiment) | panel


def start_over(shown: Shown, request: Request) -> Answer:
    """Go back to an empty design."""
    return _replace(shown, request, "starting over", None)


def _replace(shown: Shown, request: Request, label: str, experiment: Experiment | None) -> Answer:
    new = drafts.renew_ids(drafts.from_experiment(experiment) if experiment else drafts.new_draft())
    with changing(shown, request, label) as draft:
        draft.clear()
        draft.update(new)
    return shown.everything(request.screen.on())


def _clone(shown: Shown, draft_id: str, tab: str, run_id: str) -> None:
    run = shown.lab.run(run_id)
    if run is None:
        gr.Warning("The run to copy is no longer there.")
        return
    new = drafts.from_experiment(Experiment.from_record(run.experiment)) | {"cloned_from": run.id}
    _put(shown, draft_id, tab, f"copying run {run.id}", new)


def _teach_more(shown: Shown, draft_id: str, tab: str, run_id: str) -> None:
    run = shown.lab.run(run_id)
    if run is None:
        gr.Warning("The run whose model should learn more is no longer there.")
        return
    try:
        new = drafts.from_experiment(later_experiment(shown.lab.home, run)) | {"cloned_from": run.id}
    except ValueError as error:
        gr.Warning(sentence(str(error)))
        return
    _put(shown, draft_id, tab, f"further facts for run {run.id}", new)


def _put(shown: Shown, draft_id: str, tab: str, label: str, new: Draft) -> None:
    """Put another experiment in the draft's place, undone as `label`."""
    with shown.drafts.change(draft_id, label, tab) as change:
        change.draft.clear()
        change.draft.update(drafts.renew_ids(new))


def undo(shown: Shown, request: Request) -> Answer:
    """Take the last large step back, this tab's own if it made one."""
    take_over(shown, request)
    shown.drafts.undo(request.screen.draft_id, request.screen.tab)
    return shown.everything(request.screen)


def make_shorter(shown: Shown, request: Request, name: str) -> Answer:
    """Do what the estimate offers to make the run shorter."""
    resolved = examine(take_over(shown, request)).resolved
    values = values_of(name, resolved) if resolved else None
    if values is None:
        return shown.outcome(request.screen)
    with changing(shown, request, "making the run shorter") as draft:
        draft["values"].update(values)
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
