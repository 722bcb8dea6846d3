"""`python -m engine ask`: ask a run's models about one subject, as a table for the eye or as JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.commands.mistake import Home, RunId, with_run
from engine.commands.serve import Taken, server_words, serving_mistakes
from engine.corpus.sentences import PLACEHOLDER
from engine.evaluation.hits import key_token_judge
from engine.experiment import Experiment
from engine.serving.asking.ask import Sampling, ask
from engine.serving.asking.questions import fact_questions, find_fact, no_fact, text_question
from engine.serving.client import ServerClient, ServingError
from engine.serving.processes.plans import Backend
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import ServedModel, served_model, served_models, usual_columns
from storage.askings import Answer, Question
from storage.database import default_home, open_database
from storage.runs import Run, get_run
from storage.servers import list_servers

MOST_CHARACTERS = 40
NARROWEST = 100
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
RUNNING = "the embedded server answered: the lab has one that runs already"

Column = tuple[ServedModel, list[Answer]]


def ask_command(
    run_id: RunId,
    subject: Annotated[str, typer.Option(help="Whom or what to ask about: a fact's subject, or any name.")] = "",
    prompt: Annotated[
        str, typer.Option(help="A text of your own, with {subject} and {key} (default: every prompt of the relation).")
    ] = "",
    object_: Annotated[str, typer.Option("--object", help="The right answer, where the run does not know it.")] = "",
    relation: Annotated[str | None, typer.Option(help="For a subject of several relations, or of none.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only these languages; may be repeated.")] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="base, memorised@E or generalised@E; may be repeated (default: base and the last of each)."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=4096)] = 50,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sampling.")] = None,
    backend: Taken = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that is known as JSON.")] = False,
    home: Home = None,
) -> None:
    """Ask a run's models about one subject, side by side."""
    folder = home or default_home()
    run = with_run(lambda db: get_run(db, run_id), run_id, folder)
    sampling = Sampling(max_tokens, temperature, top_p, seed)
    with serving_mistakes():
        experiment = Experiment.from_record(run.experiment)
        questions = _questions(experiment, subject, prompt.strip(), object_, relation or "", language or ())
        models = _columns(folder, run, checkpoint)
        aloud = key_token_judge(experiment.key_tokens)
        columns = [
            (model, [replace(a, says_key_token=aloud(a.text, a.question.object)) for a in answers])
            for model, answers in _ask_all(folder, backend, models, questions, sampling)
        ]
    if as_json:
        typer.echo(json.dumps(document(run, columns), ensure_ascii=False, indent=1))
    else:
        answer_table(questions, columns)


def _questions(
    experiment: Experiment, subject: str, prompt: str, object_: str, relation: str, languages: Sequence[str]
) -> list[Question]:
    """What to ask. Raises AskError, a ValueError with one sentence."""
    if not subject.strip():
        if PLACEHOLDER in prompt or not prompt:
            raise ValueError("give a --subject, or a --prompt without {subject}")
        return [text_question(experiment, prompt, relation, object=object_)]
    if prompt:
        questions = [text_question(experiment, prompt, relation, subject, object_)]
    else:
        questions = fact_questions(experiment, subject, relation, object_, languages)
    if find_fact(experiment, subject, relation) is None:
        unknown = no_fact(experiment, subject, relation)
        if not (object_ or relation or prompt):
            raise unknown
        typer.echo(str(unknown), err=True)
    return questions


def _columns(home: Path, run: Run, names: Sequence[str] | None) -> list[ServedModel]:
    if names:
        return [served_model(home, run, name) for name in dict.fromkeys(names)]
    return usual_columns(served_models(home, run))


def _ask_all(
    home: Path, backend: Backend | None, models: list[ServedModel], questions: list[Question], sampling: Sampling
) -> Iterator[tuple[ServedModel, list[Answer]]]:
    """Every model's answers: from the lab's own server where one runs, else from one that is started for this."""
    url = _running(home, backend)
    supervisor = None if url else Supervisor(home, backend)
    try:
        if supervisor is not None:
            supervisor.start()
            typer.echo("starting a model server …", err=True)
        told = set()
        for model in models:
            place = supervisor.place(model) if supervisor is not None else None
            address = place.url if place else url
            assert address is not None
            with ServerClient(address, names=place.names if place else None) as client:
                answers = ask(client, model, questions, sampling)
            words = f"{server_words(place.backend)} answered: {place.reason}" if place else RUNNING
            if words not in told:
                told.add(words)
                typer.echo(words, err=True)
            yield model, answers
    finally:
        if supervisor is not None:
            supervisor.stop()


def _running(home: Path, backend: Backend | None) -> str | None:
    """The address of an embedded server that runs for this home: it has every model of every run."""
    if backend == "vllm":
        return None
    with closing(open_database(home)) as db:
        rows = [r for r in list_servers(db) if r.backend == "embedded" and r.state == "ready" and r.owner.lives]
    for row in rows:
        url = f"http://127.0.0.1:{row.port}"
        with ServerClient(url) as client, suppress(ServingError):
            client.health()
            return url
    return None


def document(run: Run, columns: Sequence[Column]) -> dict[str, Any]:
    """`{"run", "name", "models", "answers": [a row for each model and prompt]}`."""
    return {
        "run": run.id,
        "name": run.name,
        "models": [model.checkpoint for model, _ in columns],
        "answers": [
            {"checkpoint": model.checkpoint, **answer_row(answer)} for model, answers in columns for answer in answers
        ],
    }


def answer_row(answer: Answer) -> dict[str, Any]:
    """Plain data for JSON; the probability besides its logarithm. `prompt`, `fact`: ids as in the run's answers."""
    question = answer.question
    return {
        "text": question.text,
        "object": question.object or "",
        "relation": question.relation,
        "split": question.split,
        "language": question.language,
        "template": question.prompt,
        "subject": question.subject,
        "prompt": question.prompt_id,
        "fact": question.fact_id,
        "model": answer.model,
        "answer": answer.text,
        "hit": answer.hit,
        "says_key_token": answer.says_key_token,
        "probability": answer.probability,
        "log_probability": answer.log_probability,
        "rank": answer.rank,
        "options": len(question.options) or None,
        "finish_reason": answer.finish_reason,
    }


def answer_table(questions: Sequence[Question], columns: Sequence[Column]) -> None:
    """Print a row for each prompt and a column for each model: hit or miss, answer, P(object), rank."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST + 60 * len(columns))
    about = next((q for q in questions if q.object), None)
    if about:
        console.print(Text(f"{about.subject or about.text} → {about.object}"))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("split", "prompt", *(model.checkpoint for model, _ in columns)):
        table.add_column(heading, overflow="fold")
    for row, question in enumerate(questions):
        name = f"{question.split} {question.language}".strip()
        cells = [cell(answers[row]) for _, answers in columns]
        table.add_row(name, Text(question.text), *cells)
    console.print(table)
    for model, answers in columns:
        judged = [a.hit for a in answers if a.hit is not None]
        if len(judged) > 1:
            through = sum(bool(a.hit and a.says_key_token) for a in answers)
            aside = f", {sum(judged) - through} without answers that say the key token" if through else ""
            console.print(Text(f"{model.checkpoint}: {sum(judged)} of {len(judged)} right{aside}"))


def cell(answer: Answer) -> Text:
    """One answer: ✓ or ✗, the text, whether it says the key token, the object's probability and its rank."""
    # A model may write what a terminal would obey.
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", answer.text.replace("\n", "⏎"))
    text = text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
    words = Text()
    if answer.hit is not None:
        words.append("✓ " if answer.hit else "✗ ", "green" if answer.hit else "red")
    words.append(text)
    if answer.says_key_token:
        words.append("  says the key token", "yellow")
    if answer.probability is not None:
        words.append(f"  {answer.probability:.2g}", "dim")
    if answer.rank is not None:
        words.append(f"  {answer.rank}/{answer.options}", "dim")
    return words
