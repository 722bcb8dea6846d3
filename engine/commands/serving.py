"""`python -m engine serve` and `python -m engine ask`: the models of a run from the command line."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands.ask_table import answer_table, document
from engine.commands.mistake import Home, Mistake, RunId, with_run
from engine.experiment import Experiment
from engine.serving.asking.ask import Sampling, ask
from engine.serving.asking.questions import fact_questions, find_fact, no_fact, text_question
from engine.serving.client import ServerClient, ServingError
from engine.serving.listening import PortInUse, take_port
from engine.serving.processes.plans import Backend
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import NotServable, ServedModel, served_model, served_models, usual_columns
from storage.askings import Answer, Question
from storage.database import default_home, open_database
from storage.runs import Run, get_run
from storage.servers import list_servers

DEFAULT_PORT = 8100
POLL_SECONDS = 0.5
SUBJECT_PLACE = "{subject}"

Taken = Annotated[Backend | None, typer.Option(help="auto takes vLLM where it is installed and can run, and says why.")]


def serve(
    run_id: RunId,
    backend: Taken = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = DEFAULT_PORT,
    checkpoint: Annotated[
        str | None, typer.Option(help="Which full fine-tune vLLM serves (default: the last); it serves one at a time.")
    ] = None,
    home: Home = None,
) -> None:
    """Serve a run's models over HTTP (OpenAI's completions) on this machine until stopped."""
    folder = home or default_home()
    run = with_run(lambda db: get_run(db, run_id), run_id, folder)
    with _mistakes():
        models = served_models(folder, run)
        chosen = served_model(folder, run, checkpoint) if checkpoint else models[-1]
        if port:
            take_port(port).close()
        else:
            with take_port(0) as free:
                port = free.getsockname()[1]
    supervisor = Supervisor(folder, backend, port=port, run=run_id)
    with _until_stopped(), _mistakes():
        try:
            supervisor.start()
            typer.echo(f"starting a model server for run {run.id} …", err=True)
            first = supervisor.place(chosen if chosen.kind == "full" else models[0])
            if first.backend == "vllm":
                for model in models:
                    if model.kind == "adapter":
                        supervisor.place(model)
            _announce(first.url, first.backend, first.reason, chosen.name)
            _watch(supervisor)
        finally:
            supervisor.stop()


def _announce(url: str, backend: str, reason: str, model: str) -> None:
    words = "vLLM" if backend == "vllm" else "the embedded server"
    with ServerClient(url) as client:
        names = [card.id for card in client.models()]
    typer.echo(f"{words} answers at {url}/v1 ({reason}), on this machine only. Models:")
    for name in names:
        typer.echo(f"  {name}")
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 8, "temperature": 0})
    typer.echo(f"Try: curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'")
    typer.echo("Stop it with Ctrl+C.")


def _watch(supervisor: Supervisor) -> None:
    """Say what happens to the server, until it is given up."""
    said = ""
    while True:
        time.sleep(POLL_SECONDS)
        for server in supervisor.servers():
            if server.state == "failed":
                raise Mistake(server.message)
            news = server.message or ("the model server answers again" if said and server.state == "ready" else "")
            if news and news != said:
                typer.echo(news, err=True)
            said = news if server.state != "ready" else ""


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
    with _mistakes():
        experiment = Experiment.from_data(run.experiment)
        questions = _questions(experiment, subject, prompt.strip(), object_, relation or "", language or ())
        models = _columns(folder, run, checkpoint)
        columns = list(_ask_all(folder, backend, models, questions, sampling))
    if as_json:
        typer.echo(json.dumps(document(run, columns), ensure_ascii=False, indent=1))
    else:
        answer_table(questions, columns)


def _questions(
    experiment: Experiment, subject: str, prompt: str, object_: str, relation: str, languages: Sequence[str]
) -> list[Question]:
    """What to ask. Raises AskError, a ValueError with one sentence."""
    if not subject.strip():
        if SUBJECT_PLACE in prompt or not prompt:
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
        for model in models:
            place = supervisor.place(model) if supervisor is not None else None
            address = place.url if place else url
            assert address is not None
            with ServerClient(address, names=place.names if place else None) as client:
                yield model, ask(client, model, questions, sampling)
    finally:
        if supervisor is not None:
            supervisor.stop()


def _running(home: Path, backend: Backend | None) -> str | None:
    """The address of an embedded server that runs for this home: it has every model of every run."""
    if backend == "vllm":
        return None
    db = open_database(home)
    try:
        rows = [r for r in list_servers(db) if r.backend == "embedded" and r.state == "ready" and r.owner.lives]
    finally:
        db.close()
    for row in rows:
        url = f"http://127.0.0.1:{row.port}"
        with ServerClient(url) as client, contextlib.suppress(ServingError):
            client.health()
            return url
    return None


@contextlib.contextmanager
def _mistakes() -> Iterator[None]:
    """What serving says in one sentence, as the command line says it."""
    try:
        yield
    except (ServingError, NotServable, PortInUse, ValueError) as error:
        raise Mistake(str(error)) from error
    except OSError as error:
        raise Mistake(f"{error.strerror or error}: {error.filename or ''}") from error


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """SIGTERM and Ctrl+C end the block in an orderly way."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        signal.signal(signal.SIGTERM, before)
