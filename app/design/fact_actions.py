"""What happens to the facts of the Design page: edits of the table, files and pasted text, what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.design import draft as drafts
from app.design import imports
from app.design.actions import Answer, changing, edit, take_over
from app.design.draft import find_relation
from app.design.draft_facts import edit_rows, place_below, set_facts
from app.design.facts_table import MAX_ROWS, FactsEdit, read_edit
from app.design.questions import Source, no_question, preview, read_choices, read_source, show_question
from app.design.show import Shown, problem_list
from app.design.tabs import Request, facts_digest
from app.shared.words import sentence
from engine.checks import Problem, shorten
from engine.corpus.import_choices import NO_CHOICES, ImportChoices
from engine.corpus.import_files import MOST_FILES, read_files
from engine.corpus.importing import ImportedFacts, read_facts
from engine.corpus.names import generate_facts
from engine.corpus.resolve import resolve
from engine.experiment import MAX_RELATIONS, Experiment
from engine.relation import Fact


def table_rows(shown: Shown, request: Request, table: FactsEdit | None) -> Answer:
    """Take over the rows of the facts table."""
    if table is None:
        return {}
    _take_rows(shown, request, table)
    return shown.outcome(request.screen)


def table_paste(shown: Shown, request: Request, table: FactsEdit | None, imported: ImportedFacts) -> Answer:
    """Insert rows that were pasted into the facts table; what has to be asked first goes to the paste box."""
    if table is None:
        return {}
    _take_rows(shown, request, table)
    if imported.asked:
        text = {"paste_panel": gr.update(visible=True), "paste_text": table.text}
        return edit(shown, request) | text | show_question(imported, Source("paste"))
    return _import(shown, request, imported, above=table.above, at_place=True)


def _take_rows(shown: Shown, request: Request, table: FactsEdit) -> None:
    take_over(shown, request)
    undo = f"removing {table.words}" if table.words else ""
    with shown.drafts.change(request.screen.draft_id, undo, request.screen.tab) as change:
        memory, relation = change.tab, drafts.find_relation(change.draft, table.relation)
        if relation:
            told = memory.get("facts") == facts_digest(change.draft, table.relation)
            edit_rows(relation, table.steps, memory.get("rows", 0))
            if told:  # the tab shows its own edit already
                memory["facts"] = facts_digest(change.draft, table.relation)
        memory["rows"] = max([memory.get("rows", 0), *(step.number for step in table.steps)])
        drafts.adapt(change.draft)


def read_rows(event: gr.EventData) -> tuple[FactsEdit | None]:
    """What was done in the table."""
    return (read_edit(event),)


def read_pasted_rows(event: gr.EventData) -> tuple[FactsEdit | None, ImportedFacts]:
    """What was done in the table, and the facts that were pasted into it."""
    table = read_edit(event)
    return table, read_facts(table.text if table else "")


def read_upload(file: Any, choices: ImportChoices = NO_CHOICES, replace: bool = False) -> tuple[ImportedFacts, Source]:
    """The facts of an uploaded file; they go below what is in the table, unless they are to replace it.

    Of several files each goes to the relation that it names.
    """
    several = isinstance(file, list) and len(file) > 1
    path = Path(str(file[0] if isinstance(file, list) and file else file))
    try:
        if several:
            files = [Path(str(one)) for one in file]
            read = read_files([(one.name, one.read_bytes()) for one in files[: MOST_FILES + 1]])
            return read, Source("upload", f"{len(files)} files", replace)
        return read_facts(path.read_bytes(), path.name, choices), Source("upload", path.name, replace)
    except OSError:
        gone = Problem("the file is no longer there: choose it again")
        return ImportedFacts(reading=(gone,)), Source("upload", path.name)


def read_paste(text: Any, replace: bool, choices: ImportChoices = NO_CHOICES) -> tuple[ImportedFacts, Source]:
    """The facts in the paste box."""
    return read_facts(str(text or ""), choices=choices), Source("paste", replace=replace)


def read_by_answers(about: Any, file: Any, text: Any, *answers: Any) -> tuple[ImportedFacts, Source]:
    """The facts of the file or text that something was asked of, by the answers so far."""
    source, choices = read_source(about), read_choices(about, *answers)
    if source.kind == "upload":
        return read_upload(file, choices)
    return read_paste(text, source.replace, choices)


def look_by_answers(shown: Shown, request: Request, imported: ImportedFacts, source: Source) -> Answer:
    """Show the first rows as these answers read them."""
    return edit(shown, request) | {"question_preview": preview(imported)}


def take_file(shown: Shown, request: Request, imported: ImportedFacts, source: Source) -> Answer:
    """Take the facts of a file or of the paste box, unless something has to be asked first."""
    if imported.asked:
        return edit(shown, request) | show_question(imported, source) | {"import_report": ""}
    answer = _import(shown, request, imported, source.name, replace=source.replace) | no_question() | {"upload": None}
    if source.kind == "paste" and 0 < len(imported.facts) <= MAX_ROWS:
        answer |= {"paste_text": "", "paste_panel": gr.update(visible=False)}
    return answer


def drop_question(shown: Shown, request: Request) -> Answer:
    """Take nothing of the file."""
    return edit(shown, request) | no_question() | {"upload": None}


def keep_rows(shown: Shown, request: Request) -> Answer:
    """Set aside what an import could not read as it stands."""
    with changing(shown, request, "keeping the rows as they are") as draft:
        if relation := find_relation(draft, request.screen.relation_id):
            imports.keep_rows(relation)
    return shown.outcome(request.screen)


def leave_out_rows(shown: Shown, request: Request) -> Answer:
    """Remove the rows that an import could not read as they stand."""
    with changing(shown, request, "leaving rows out") as draft:
        if relation := find_relation(draft, request.screen.relation_id):
            imports.leave_out_rows(relation)
    return shown.everything(request.screen)


def clear_facts(shown: Shown, request: Request) -> Answer:
    """Empty the facts table."""
    with changing(shown, request, "clearing the table") as draft:
        if relation := find_relation(draft, request.screen.relation_id):
            set_facts(relation, ())
    return shown.everything(request.screen)


def copy_generated(shown: Shown, request: Request) -> Answer:
    """Write the invented facts into the table, to be edited."""
    try:
        with changing(shown, request, "copying the facts") as draft:
            if relation := find_relation(draft, request.screen.relation_id):
                seed, number = draft["values"]["seed"] or 0, relation["generate"] or 0
                if not isinstance(seed, int) or not isinstance(number, int):
                    raise ValueError("The seed and the number of facts must be whole numbers.")
                if relation.get("subjects_of"):
                    place = draft["relations"].index(relation)
                    written = resolve(Experiment.from_data(drafts.to_data(draft))).relations[place].explicit_facts
                else:
                    names = drafts.names_of(draft, relation)
                    pairs = generate_facts(relation["name"].strip(), seed, number, names)
                    written = tuple(Fact(subject=s, object=o) for s, o in pairs)
                set_facts(relation, written)
                relation["facts_from"] = "own"
    except ValueError as error:
        gr.Warning(str(error))
    return shown.everything(request.screen)


def _import(
    shown: Shown,
    request: Request,
    imported: ImportedFacts,
    name: str = "",
    replace: bool = False,
    above: int | None = None,
    at_place: bool = False,
) -> Answer:
    """Put facts into the table (at the end, or below the row `above`), or in its place; report how they were read."""
    count = len(imported.facts)
    if not count or count > MAX_ROWS:
        too_many = Problem(f"{count:,} facts are more than the table holds ({MAX_ROWS:,}): split them up")
        report = problem_list([too_many] if count else imported.reading)
        return edit(shown, request) | {"import_report": report}
    if (found := len(set(imported.relations))) > MAX_RELATIONS:
        many = f"its column ‘relation’ names {found:,} relations, more than the {MAX_RELATIONS} of an experiment"
        return edit(shown, request) | {"import_report": problem_list([Problem(f"{many}: name it otherwise")])}
    with changing(shown, request, "the import") as draft:
        here = find_relation(draft, request.screen.relation_id)
        place = place_below(here, above) if here and at_place else None
        imports.take_facts(draft, here, imported, name, place, replace)
    named = [f"‘{shorten(name, 30)}’" for name in dict.fromkeys(imported.relations) if name]
    where = f" for {', '.join(named[:5])}{' and others' * (len(named) > 5)}" if named else ""
    notes = [f"{count:,} facts read{where}.", *(sentence(note) for note in imported.notes)]
    return shown.everything(request.screen) | {"import_report": problem_list([], more=" ".join(notes))}
