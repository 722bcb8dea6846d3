"""Asking: what was typed, or sent by a script, becomes an asking with its columns in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.ask.grid import probability
from app.ask.plan import (
    AskError,
    Settings,
    checked_subject,
    checked_text,
    fact_questions,
    facts_questions,
    find_fact,
    find_relation,
    text_question,
)
from app.ask.view import MODEL, MOST_COLUMNS, column_parts, models_of
from app.shared.lab import Lab
from engine.checks import shorten
from engine.evaluation.questions import PLACEHOLDER, key_prompt
from engine.experiment import Experiment
from storage.asked import add_asking, full_answers, get_asking, list_columns, list_questions
from storage.asked_queue import add_columns
from storage.runs import Run

GREEDY = Settings()


def run_to_ask(lab: Lab, run_id: str | None) -> Run:
    """The run of that id. Raises AskError."""
    run = lab.run((run_id or "").strip()[:64])
    if run is None:
        raise AskError(f"There is no run “{shorten(str(run_id or ''))}”: it may have been deleted.")
    return run


def ask_fact(
    lab: Lab,
    run: Run,
    subject: str,
    relation: str = "",
    languages: Sequence[str] = (),
    settings: Settings = GREEDY,
    columns: Sequence[str] = (),
) -> str:
    """Ask every prompt of the relation about a fact's subject; returns the asking's id. Raises AskError."""
    experiment = Experiment.from_data(run.experiment)
    typed = checked_subject(subject)
    if unknown := [x for x in languages if x not in experiment.languages]:
        raise AskError(f"This run has no prompts in “{shorten(unknown[0])}”; it has {', '.join(experiment.languages)}.")
    fact = find_fact(experiment, typed, relation)
    chosen = find_relation(experiment, fact["relation"] if fact and not relation else relation)
    name = fact["subject"] if fact else typed
    questions = fact_questions(experiment, chosen, name, fact, languages)
    asking = add_asking(
        lab.db,
        kind="fact",
        run=run.id,
        run_name=run.name,
        relation=chosen.name,
        subject=name,
        object=fact["object"] if fact else None,
        title=f"{name}, {chosen.name}",
        settings=settings.model_dump(),
        questions=questions,
    )
    return with_columns(lab, run, asking, columns)


def ask_text(lab: Lab, run: Run, text: str, settings: Settings = GREEDY, columns: Sequence[str] = ()) -> str:
    """Ask a free text as it stands; returns the asking's id. Raises AskError."""
    question = text_question(Experiment.from_data(run.experiment), checked_text(text))
    relation = question.pop("relation")
    asking = add_asking(
        lab.db,
        kind="text",
        run=run.id,
        run_name=run.name,
        relation=relation,
        subject=question["subject"],
        object=question["object"],
        title=" ".join(question["text"].split())[:300],
        settings=settings.model_dump(),
        questions=[question],
    )
    return with_columns(lab, run, asking, columns)


def ask_facts(
    lab: Lab,
    run: Run,
    prompt: str,
    relation: str = "",
    settings: Settings = GREEDY,
    columns: Sequence[str] = (),
) -> str:
    """Ask one prompt (with `{subject}`) about every fact of a relation; returns the asking's id. Raises AskError."""
    experiment = Experiment.from_data(run.experiment)
    chosen = find_relation(experiment, relation)
    questions = facts_questions(experiment, chosen, prompt or key_prompt(chosen))
    asking = add_asking(
        lab.db,
        kind="facts",
        run=run.id,
        run_name=run.name,
        relation=chosen.name,
        subject="",
        object=None,
        title=questions[0]["prompt"].replace(PLACEHOLDER, "…")[:300],
        settings=settings.model_dump(),
        questions=questions,
    )
    return with_columns(lab, run, asking, columns)


def with_columns(lab: Lab, run: Run, asking: str, columns: Sequence[str]) -> str:
    """The asking, with its questions put to these models, or to base and both stages."""
    put_to(lab, asking, columns or models_of(lab, run).stages or (f"{run.id}/base",))
    return asking


def put_to(lab: Lab, asking: str, columns: Sequence[str]) -> None:
    """Put an asking's questions to further models, each RUN/CHECKPOINT. Raises AskError."""
    rows: list[tuple[str, str, str, str]] = []
    if len(columns) > MOST_COLUMNS:
        raise AskError(f"{len(columns)} models are too many side by side: choose at most {MOST_COLUMNS}.")
    for model in columns:
        if not MODEL.fullmatch(model):
            raise AskError(f"“{shorten(model)}” is no model: name one as RUN/base or RUN/generalised@20.")
        run_id, checkpoint = column_parts(model)
        run = run_to_ask(lab, run_id)
        rows.append((model, run_id, run.name, checkpoint))
    add_columns(lab.db, asking, rows)


def kept_document(lab: Lab, asking_id: str) -> dict[str, Any]:
    """Everything kept of one asking as plain data: what was asked, of whom, and every answer with its tokens.

    Raises KeyError when there is none of that id.
    """
    asking = get_asking(lab.db, asking_id)
    columns = [
        {
            "model": c.model,
            "run": c.run,
            "run_name": c.run_name,
            "checkpoint": c.checkpoint,
            "state": c.state,
            "error": c.error,
            "backend": c.backend,
            "answered": c.answered,
        }
        for c in list_columns(lab.db, asking_id)
    ]
    answers = []
    for row in full_answers(lab.db, asking_id):
        value = row.pop("log_probability")
        answers.append(row | {"log_probability": value, "probability": probability(value)})
    return {
        "id": asking.id,
        "kind": asking.kind,
        "title": asking.title,
        "run": asking.run,
        "run_name": asking.run_name,
        "relation": asking.relation,
        "subject": asking.subject,
        "object": asking.object,
        "settings": asking.settings,
        "asked_at": asking.created_at,
        "models": columns,
        "questions": list_questions(lab.db, asking_id),
        "answers": answers,
    }
