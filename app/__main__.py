"""Start the lab: `python -m app [--host 127.0.0.1] [--port 7860] [--home DIR] [--no-worker]`."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn

from app.asking.model_server import ModelServer
from app.server.first_start import bring_recorded_attack, queue_first_run
from app.server.worker_process import WorkerProcess
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.serving.guard import LOCAL_HOSTS
from engine.serving.processes.plans import CannotServe
from storage.database import check_whole, default_home
from storage.trouble import say_trouble

DEFAULT_PORT = 7860
PORTS_TRIED = 50
# Read by Gradio when it is imported: nothing is reported to anybody, and no font or script is fetched.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def main(
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 opens the lab to the network.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"Port. By default {DEFAULT_PORT}, or the next free one.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the lab's data. By default ~/.rote-lab.")] = None,
    worker: Annotated[bool, typer.Option(help="Also start a worker that carries out queued runs.")] = True,
) -> None:
    """Start Rote Lab and its worker; stop both with Ctrl-C."""
    listener = open_port(host, port)
    os.environ.update({k: v for k, v in QUIET.items() if k not in os.environ})
    try:
        home = (home or default_home()).expanduser().resolve()
        check_whole(home)
        serve(listener, host, home, worker)
    except sqlite3.Error as error:
        fail(sentence(say_trouble(error)))
    except OSError as error:
        fail(f"The lab's folder cannot be used: {error}.")


def open_port(host: str, port: int | None) -> socket.socket:
    """A bound socket at the port; without a port, at the first free one from 7860 on. Exits with 2 when in use."""
    for candidate in [port] if port else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, candidate))
            listener.listen(128)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno != errno.EADDRINUSE:
                fail(f"The lab cannot listen on {host}: {error}.")
            if port:
                fail(f"Port {port} is in use: name another with --port, or leave it out to take the next free one.")
            continue
        if port is None and candidate != DEFAULT_PORT:
            print(f"Port {DEFAULT_PORT} is in use, so the lab takes port {candidate}.", flush=True)
        return listener
    fail(f"The ports {DEFAULT_PORT} to {DEFAULT_PORT + PORTS_TRIED - 1} are all in use: name a free one with --port.")


def fail(sentence: str) -> NoReturn:
    """Say why on stderr and exit with 2."""
    print(sentence, file=sys.stderr, flush=True)
    raise typer.Exit(2)


def serve(listener: socket.socket, host: str, home: Path, with_worker: bool) -> None:
    """Serve the site on the listening socket until the process is told to end."""
    from app.site import build_site  # loads Gradio, which reads `QUIET` from the environment

    queue_first_run(Lab(home))
    hosts = None if host in ("0.0.0.0", "::") else LOCAL_HOSTS | {host}
    try:
        models = ModelServer(home)
    except CannotServe as error:
        fail(f"{error}.")
    process = WorkerProcess(home)
    site = build_site(home, hosts, models, process.starting)
    server = uvicorn.Server(uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=3))
    threading.Thread(target=announce, args=(server, listener, home), daemon=True).start()
    # After its own shutdown uvicorn raises the signal again, which would end the process before `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    models.start()
    if with_worker:
        process.start()
    try:
        server.run(sockets=[listener])
    finally:
        models.stop()
        if with_worker:
            process.stop()


def announce(server: object, listener: socket.socket, home: Path) -> None:
    """Print the address as soon as the server answers; then there is time for what a first start brings."""
    while not getattr(server, "started", False):
        time.sleep(0.05)
    name, port = listener.getsockname()[:2]
    shown = "localhost" if name in ("0.0.0.0", "::") else f"[{name}]" if ":" in name else name
    print(f"Rote Lab is ready at http://{shown}:{port} (data in {home}). Stop it with Ctrl-C.", flush=True)
    bring_recorded_attack(Lab(home))


if __name__ == "__main__":
    typer.run(main)
