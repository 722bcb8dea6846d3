"""Start the lab: `python -m app [--host 127.0.0.1] [--port 7860] [--home DIR] [--no-worker]`."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvicorn

from app.asking.model_server import ModelServer
from app.server.first_start import bring_recorded_attacks, bring_recorded_runs, queue_first_run
from app.server.memory import use_few_arenas
from app.server.sign_in import Access, NotSafe, Provider, access, provider
from app.server.uploads import make_uploads
from app.server.worker_process import Workers
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.cluster.connection import ClusterError, check_address
from engine.logs import in_json, set_up_logs
from engine.models.catalogue import use_home
from engine.serving.connections import server_settings
from engine.serving.processes.plans import CannotServe
from storage.accounts import list_users
from storage.acting import Role
from storage.database import check_whole, default_home
from storage.trouble import say_trouble

logger = logging.getLogger("app")

DEFAULT_PORT = 7860
PORTS_TRIED = 50
# Read by Gradio when it is imported: nothing is reported to anybody, and no font, script or model is fetched by the
# page. Its worker downloads the models that runs name, and a process of its own asks how large they are, unless the lab
# itself was started with HF_HUB_OFFLINE=1.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "DO_NOT_TRACK": "1"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def main(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Beyond this machine only where people sign in: --accounts, --openid or --proxy."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"Port. By default {DEFAULT_PORT}, or the next free one.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the lab's data. By default ~/.rote-lab.")] = None,
    worker: Annotated[bool, typer.Option(help="Also start a worker that carries out queued runs.")] = True,
    on: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Carry runs out on this Ray cluster: ray://HOST:10001.")
    ] = None,
    user_header: Annotated[
        str, typer.Option(help="Header in which a proxy that signs people in tells who asks: X-Forwarded-User.")
    ] = "",
    proxy: Annotated[
        list[str] | None, typer.Option(help="Address or network of that proxy; nobody else may ask. Repeatable.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Name by which browsers may call the lab: lab.example.org. Repeatable.")
    ] = None,
    accounts: Annotated[
        bool, typer.Option(help="Only who signs in may ask, with an account of the lab: see `rote-lab users`.")
    ] = False,
    openid: Annotated[
        str, typer.Option(help="Address of an OpenID provider at which people sign in, beside --accounts or alone.")
    ] = "",
    openid_client: Annotated[str, typer.Option(help="The lab's name there; its secret: ROTE_LAB_OPENID_SECRET.")] = "",
    openid_allow: Annotated[
        list[str] | None, typer.Option(help="Whom it lets in: *@lab.example, group:NAME, or *. Repeatable.")
    ] = None,
    new_people: Annotated[
        Role, typer.Option(help="The role of those whom a provider or a proxy names for the first time.")
    ] = Role.RUNNER,
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Models of the hub, or folders, for runners, beside those that the lab knows: Qwen/*. Repeatable."
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Serve by https with this certificate (PEM), and --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    published_on_loopback: Annotated[
        bool, typer.Option(help="In a container whose port is published on 127.0.0.1: only this machine may ask.")
    ] = False,
) -> None:
    """Start Rote Lab and its worker; stop both with Ctrl-C."""
    listener = open_port(host, port)
    try:
        allowed = access(
            listener.getsockname()[0], host, user_header, tuple(proxy or ()), tuple(allowed_host or ()),
            published_on_loopback, accounts or bool(openid), new_people, tuple(models or ()),
        )  # fmt: skip
        at = provider(openid, openid_client, tuple(openid_allow or ()))
        tls = certificate_of(certificate, key)
    except NotSafe as error:
        listener.close()
        fail(str(error))
    try:
        if on is not None:
            check_address(on)
    except ClusterError as error:
        listener.close()
        fail(str(error))
    if in_json():
        set_up_logs()
    of_worker = QUIET | os.environ
    os.environ.update(OFFLINE | of_worker)
    try:
        home = (home or default_home()).expanduser().resolve()
        use_home(home)
        check_whole(home)
        if accounts and not at and not list_users(Lab(home).db):
            listener.close()
            fail(f"Nobody has an account in {home} yet: `rote-lab users add NAME --home {home}`, then start it again.")
        serve(listener, allowed, home, of_worker if worker else None, of_worker, tls, at, accounts, on)
    except sqlite3.Error as error:
        fail(sentence(say_trouble(error)))
    except OSError as error:
        fail(f"The lab's folder cannot be used: {error}.")


def certificate_of(certificate: Path | None, key: Path | None) -> dict[str, Any]:
    """Settings of uvicorn for https; none without a certificate. Raises NotSafe."""
    if certificate is None and key is None:
        return {}
    if certificate is None or key is None:
        raise NotSafe("--certificate and --key go together: name both files.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise NotSafe(f"The certificate {certificate} and its key {key} cannot be used: {error}.") from error
    return {"ssl_certfile": certificate, "ssl_keyfile": key}


def open_port(host: str, port: int | None) -> socket.socket:
    """A bound socket at the port; without a port, at the first free one from 7860 on. Exits with 2 when in use."""
    for candidate in [port] if port else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        try:
            family, _, _, _, place = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(128)
        except (OSError, UnicodeError) as error:
            if isinstance(error, (socket.gaierror, UnicodeError)) or error.errno != errno.EADDRINUSE:
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


def serve(
    listener: socket.socket,
    allowed: Access,
    home: Path,
    worker: Mapping[str, str] | None,
    outside: Mapping[str, str],
    tls: dict[str, Any],
    openid: Provider | None,
    passwords: bool,
    cluster: str | None = None,
) -> None:
    """Serve the site on the listening socket until the process is told to end. `worker`: the environment of workers
    that are started beside it, None for none; `outside`: of processes that ask the hub for the sizes of models; `tls`:
    settings of uvicorn for https; `openid`, `passwords`: see `build_site`; `cluster`: the address of one that carries
    out the runs, through one worker."""
    use_few_arenas()
    make_uploads(home)
    from app.site import build_site  # loads Gradio, which reads `QUIET` from the environment

    queue_first_run(Lab(home))
    try:
        models = ModelServer(home)
    except CannotServe as error:
        fail(f"{error}.")
    workers = Workers(home, worker, cluster)
    site = build_site(home, allowed, models, workers.starting, outside, openid, passwords)
    log: dict[str, Any] = {"log_config": None} if in_json() else {}
    config = uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=3, **log, **tls, **server_settings())
    server = uvicorn.Server(config)
    threading.Thread(target=announce, args=(server, listener, home, "https" if tls else "http"), daemon=True).start()
    # After its own shutdown uvicorn raises the signal again, which would end the process before `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    models.start()
    workers.start()
    try:
        server.run(sockets=[listener])
    finally:
        models.stop()
        workers.stop()


def announce(server: object, listener: socket.socket, home: Path, scheme: str) -> None:
    """Print the address as soon as the server answers; then there is time for what a first start brings."""
    while not getattr(server, "started", False):
        time.sleep(0.05)
    name, port = listener.getsockname()[:2]
    shown = "localhost" if name in ("0.0.0.0", "::") else f"[{name}]" if ":" in name else name
    ready = f"Rote Lab is ready at {scheme}://{shown}:{port} (data in {home})"
    if in_json():
        logger.info(ready)
    else:
        print(f"{ready}. Stop it with Ctrl-C.", flush=True)
    lab = Lab(home)
    bring_recorded_runs(lab)
    bring_recorded_attacks(lab)


if __name__ == "__main__":
    typer.run(main)
