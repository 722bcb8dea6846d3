"""Putting questions: what was typed, or sent by a script, becomes an asking with its columns in the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.asking.columns import MODEL, MOST_COLUMNS, column_parts, models_of
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.checks import shorten
from engine.corpus.sentences import key_prompt, question_text
from engine.experiment import Experiment
from engine.serving.asking.questions import AskError, fact_questions, facts_questions, find_relation, text_question
from storage.asking_queue import add_column
from storage.askings import Question, add_asking
from storage.audit import note
from storage.database import write
from storage.runs import NO_MODEL, Run

MAX_TEXT_CHARACTERS = 4_000
MAX_NEW_TOKENS = 200
LOOK_SECONDS = 0.05


class Settings(BaseModel):
    """How the answers are decoded. Temperature 0 is greedy: always the most probable token."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = 50


GREEDY = Settings()
BOUNDS = {
    "temperature": "The temperature must be 0 (greedy) to 5",
    "top_p": "Top-p must be above 0, up to 1",
    "seed": "The seed must be a whole number from 0",
    "max_tokens": f"The number of tokens must be 1 to {MAX_NEW_TOKENS}",
}


def read_settings(values: dict[str, Any]) -> Settings:
    """Typed values as settings; those left empty are the defaults. Raises AskError."""
    given = {k: v for k, v in values.items() if k in Settings.model_fields and v not in (None, "")}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise AskError(f"{BOUNDS[field]}, not “{shorten(str(given[field]))}”.") from error


def checked_text(text: str) -> str:
    """A typed prompt. Raises AskError."""
    if not text.strip():
        raise AskError("Type a prompt first.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise AskError(f"This prompt has {len(text):,} characters; {MAX_TEXT_CHARACTERS:,} are the most: shorten it.")
    return text


def run_to_ask(lab: Lab, run_id: str | None) -> Run:
    """The run of that id. Raises AskError, also for a recording."""
    run = lab.run((run_id or "").strip()[:64])
    if run is None:
        raise AskError(f"There is no run “{shorten(str(run_id or ''))}”: it may have been deleted.")
    if run.recorded:
        raise AskError(sentence(NO_MODEL))
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
    questions = fact_questions(Experiment.from_record(run.experiment), subject, relation, languages=languages)
    first = questions[0]
    return _put(lab, run, "fact", f"{first.subject}, {first.relation}", questions, settings, columns)


def ask_text(lab: Lab, run: Run, text: str, settings: Settings = GREEDY, columns: Sequence[str] = ()) -> str:
    """Ask a free text as it stands; returns the asking's id. Raises AskError."""
    question = text_question(Experiment.from_record(run.experiment), checked_text(text))
    return _put(lab, run, "text", " ".join(question.text.split()), [question], settings, columns)


def ask_facts(
    lab: Lab, run: Run, prompt: str, relation: str = "", settings: Settings = GREEDY, columns: Sequence[str] = ()
) -> str:
    """Ask one prompt (with `{subject}`) about every fact of a relation; returns the asking's id. Raises AskError."""
    experiment = Experiment.from_record(run.experiment)
    text = checked_text(prompt or key_prompt(find_relation(experiment, relation)))
    questions = facts_questions(experiment, text, relation)
    if not questions:
        raise AskError("The relation has no fact that this prompt can be put to.")
    title = question_text(questions[0].prompt, "…")
    return _put(lab, run, "facts", title, questions, settings, columns)


def _put(
    lab: Lab, run: Run, kind: str, title: str, questions: list[Question], settings: Settings, columns: Sequence[str]
) -> str:
    """Keep the questions and put them to these models, or to base and both stages."""
    chosen = columns or models_of(lab, run).stages or (f"{run.id}/base",)
    with write(lab.db):
        asking = add_asking(lab.db, kind, run.id, run.name, title[:300], settings.model_dump(), questions)
        _put_to(lab, asking, chosen)
    return asking


def put_to(lab: Lab, asking: str, columns: Sequence[str]) -> None:
    """Put an asking's questions to further models, each RUN/CHECKPOINT. Raises AskError."""
    with write(lab.db):
        _put_to(lab, asking, columns)
        note(lab.db, "asked", "question", asking, f"of {', '.join(columns)}")


def _put_to(lab: Lab, asking: str, columns: Sequence[str]) -> None:
    if len(columns) > MOST_COLUMNS:
        raise AskError(f"{len(columns)} models are too many side by side: choose at most {MOST_COLUMNS}.")
    for model in columns:
        if not MODEL.fullmatch(model):
            raise AskError(f"“{shorten(model)}” is no model: name one as RUN/base or RUN/generalised@20.")
    runs = [(run_to_ask(lab, run), checkpoint) for run, checkpoint in map(column_parts, columns)]
    with write(lab.db):
        for run, checkpoint in runs:
            add_column(lab.db, asking, run.id, run.name, checkpoint)


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    """Return when it is done, or after that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not done():
        time.sleep(LOOK_SECONDS)
