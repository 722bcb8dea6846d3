"""`python -m engine serve`: the models of a run over HTTP from the command line."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from engine.commands.mistake import Home, Mistake, RunId, with_run
from engine.serving.client import ServerClient, ServingError
from engine.serving.listening import PortInUse, take_port
from engine.serving.processes.plans import Backend
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import NotServable, served_model, served_models
from storage.database import default_home
from storage.runs import get_run

DEFAULT_PORT = 8100
POLL_SECONDS = 0.5

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
    with serving_mistakes():
        models = served_models(folder, run)
        chosen = served_model(folder, run, checkpoint) if checkpoint else models[-1]
        with take_port(port) as free:
            port = free.getsockname()[1]
    supervisor = Supervisor(folder, backend, port=port, run=run_id)
    with _until_stopped(), serving_mistakes():
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
    with ServerClient(url) as client:
        names = [card.id for card in client.models()]
    typer.echo(f"{server_words(backend)} answers at {url}/v1 ({reason}), on this machine only. Models:")
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


def server_words(backend: str) -> str:
    """What a backend is called in a sentence."""
    return "vLLM" if backend == "vllm" else "the embedded server"


@contextlib.contextmanager
def serving_mistakes() -> Iterator[None]:
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
