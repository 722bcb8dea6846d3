"""The embedded model server: transformers behind the same protocol as vLLM, for machines without it.

python -m engine.serving.embedded.server --home DIR [--run RUN] [--port N]

Listens on 127.0.0.1 only. It finds models by name in the lab's home (catalogue.py), so nothing need be loaded by hand;
`/v1/load_lora_adapter` takes adapters from inside the home only.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from engine.checks import shorten
from engine.evaluation.batches import EvaluationError
from engine.hardware import SettingError, cpu_threads
from engine.logs import set_up_logs
from engine.models.catalogue import use_home
from engine.models.device import choose_device
from engine.models.out_of_memory import is_out_of_memory
from engine.models.source import ModelError
from engine.serving.connections import server_settings
from engine.serving.embedded.admission import BODY_SECONDS, MOST_BYTES, Admission
from engine.serving.embedded.catalogue import Catalogue, UnknownModel
from engine.serving.embedded.replies import CompletionJob, OptionsJob
from engine.serving.embedded.residents import Residents
from engine.serving.embedded.scheduling import Gone, Job, Scheduler
from engine.serving.embedded.sending import as_json, as_stream, refusal
from engine.serving.guard import Guard
from engine.serving.listening import HOST, PortInUse, take_port
from engine.serving.mistakes import Unreadable, read
from engine.serving.protocol import (
    LOAD_BY_NAME,
    SCORE_ANSWERS,
    SCORE_OPTIONS,
    CompletionRequest,
    ErrorResponse,
    Health,
    LoadAdapterRequest,
    Message,
    ModelCard,
    ModelList,
    OptionsRequest,
    UnloadAdapterRequest,
)

logger = logging.getLogger("engine.serving")
POLL_SECONDS = 0.1
CLIENT_CLOSED = 499
# Beyond it a connection is refused with status 503; each one open takes a file handle and a little memory.
UNKNOWN_PATH = "there is nothing at this address: ask POST /v1/completions, or GET /v1/models"
CUT_OFF = (
    f"the request is over {MOST_BYTES // 2**20} MiB, or did not come to its end within {BODY_SECONDS:.0f} s: ask fewer "
    "questions at once"
)
NO_JSON_TYPE = "say what the request is: send it with the header ‘Content-Type: application/json’"
Body = TypeVar("Body", bound=Message)


class _CutOff(Exception):
    """A request whose end was not waited for."""


class EmbeddedServer:
    """The state behind the endpoints. `runs`: those whose models `/v1/models` lists from the start."""

    def __init__(self, home: Path, runs: tuple[str, ...] = (), memory: int | None = None) -> None:
        self.device = choose_device()
        self.catalogue = Catalogue(home)
        self.residents = Residents(self.catalogue, memory)
        # Torch's own threads serve a large model better; small ones are computed side by side.
        self.scheduler = Scheduler(self.residents, cpu_threads() if self.device.type == "cpu" else 1)
        self.runs = runs
        self._loading = threading.Lock()
        if runs:
            self.catalogue.base = self.catalogue.find(f"{runs[0]}/base").name

    def warm_up(self) -> None:
        """Load the base, so that the first question finds it in memory."""
        if self.catalogue.base:
            with self.residents.holding(self.catalogue.base):
                pass

    def models(self) -> list[ModelCard]:
        """The models of the runs that the server was started for, what was brought, and what else is in memory."""
        names: list[str] = []
        for run in self.runs:
            try:
                names += self.catalogue.run_models(run)
            except ModelError as error:
                logger.warning("%s", error)
        names += [*self.catalogue.brought(), *self.residents.loaded()]
        alias = ["base"] if self.catalogue.base else []
        return [card for name in dict.fromkeys([*alias, *names]) if (card := self._card(name))]

    def _card(self, name: str) -> ModelCard | None:
        try:
            place = self.catalogue.find(name)
        except (ModelError, OSError):
            return None
        return ModelCard(
            id=name, root=str(place.folder), parent=place.base, max_model_len=self.residents.context_of(place)
        )

    def load(self, name: str, folder: str, inplace: bool = False) -> None:
        """Bring an adapter and load it; one that cannot be loaded leaves what had its name. Raises ModelError."""
        with self._loading:
            before = self.catalogue.bring(name, folder, inplace)
            try:
                if inplace:
                    self.residents.let_go(name)
                with self.residents.holding(name):
                    pass
            except Exception:
                self.catalogue.bring_back(name, before)
                raise

    def unload(self, name: str) -> None:
        """Forget an adapter, or take a checkpoint out of memory. Raises UnknownModel."""
        with self._loading:
            was_brought = self.catalogue.send_away(name)
            if not self.residents.let_go(name) and not was_brought:
                raise UnknownModel(f"there is no adapter ‘{shorten(name)}’")


def build_app(server: EmbeddedServer) -> FastAPI:
    """The endpoints."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(server.warm_up)
        yield
        await asyncio.to_thread(server.scheduler.stop)

    app = FastAPI(title="Rote Lab model server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Admission)
    app.add_middleware(Guard, any_port=True, most_bytes=MOST_BYTES, refuse=refusal)

    @app.get("/health")
    async def health() -> Response:
        return as_json(
            Health(
                server="embedded",
                extensions=[SCORE_OPTIONS, SCORE_ANSWERS, LOAD_BY_NAME],
                loaded=server.residents.loaded(),
                device=str(server.device),
            )
        )

    @app.get("/v1/models")
    async def models() -> Response:
        return as_json(ModelList(data=await asyncio.to_thread(server.models)))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await _read(CompletionRequest, request)
        job = CompletionJob(body, body.model or "base")
        resident, texts = await _result(server, job, request)
        reply = await asyncio.to_thread(job.finish, resident, texts)
        return await asyncio.to_thread(as_stream if body.stream else as_json, reply)

    @app.post(f"/v1/{SCORE_OPTIONS}")
    async def score_options(request: Request) -> Response:
        job = OptionsJob(await _read(OptionsRequest, request))
        return await asyncio.to_thread(as_json, await _result(server, job, request))

    @app.post("/v1/load_lora_adapter")
    async def load_lora_adapter(request: Request) -> Response:
        body = await _read(LoadAdapterRequest, request)
        await asyncio.to_thread(server.load, body.lora_name, body.lora_path, body.load_inplace)
        return Response(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload_lora_adapter(request: Request) -> Response:
        body = await _read(UnloadAdapterRequest, request)
        await asyncio.to_thread(server.unload, body.lora_name)
        return Response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    _answer_errors(app)
    return app


async def _read(kind: type[Body], request: Request) -> Body:
    """The request's body as such a message. Raises Unreadable, and _CutOff for one that does not come to its end."""
    # A page of another site can send JSON only under another type without asking first.
    if "json" not in request.headers.get("content-type", "").lower():
        raise Unreadable(NO_JSON_TYPE)
    try:
        content = await request.body()
    except ClientDisconnect:
        raise _CutOff from None
    return await asyncio.to_thread(read, kind, content)


async def _result(server: EmbeddedServer, job: Job, request: Request) -> Any:
    """The job's result; when the client goes away meanwhile, the job is dropped."""
    await request.scope["replies"](job.size)
    server.scheduler.submit(job)
    future = asyncio.wrap_future(job.future)
    try:
        while True:
            done, _ = await asyncio.wait([future], timeout=POLL_SECONDS)
            if done:
                return future.result()
            if await request.is_disconnected():
                raise Gone
    finally:
        job.cancelled = True


def _answer_errors(app: FastAPI) -> None:
    """Every error as the protocol has it, in words."""
    Handler = Callable[[Request, Any], Awaitable[Response]]

    def refusing(status: int, words: Callable[[Any], str]) -> Handler:
        async def answer(_: Request, error: Any) -> Response:
            if status >= 500:
                logger.error("a request failed", exc_info=error)
            reply = as_json(ErrorResponse.of(status, words(error), param=getattr(error, "param", None)), status)
            if isinstance(error, _CutOff):
                reply.headers["Connection"] = "close"  # the rest of its request may still come
            return reply

        return answer

    app.add_exception_handler(UnknownModel, refusing(404, str))
    app.add_exception_handler(ModelError, refusing(400, str))
    app.add_exception_handler(EvaluationError, refusing(500, str))
    app.add_exception_handler(Unreadable, refusing(400, str))
    app.add_exception_handler(_CutOff, refusing(413, lambda _: CUT_OFF))
    app.add_exception_handler(Gone, refusing(CLIENT_CLOSED, lambda _: "the client has gone"))
    full = refusing(503, lambda _: "the device’s memory is full: ask fewer questions at once")
    app.add_exception_handler(torch.OutOfMemoryError, full)
    failed = refusing(500, lambda error: f"the server failed: {shorten(repr(error), 200)}")
    app.add_exception_handler(
        Exception, lambda request, error: (full if is_out_of_memory(error) else failed)(request, error)
    )

    async def http_error(_: Request, error: Any) -> Response:
        words = UNKNOWN_PATH if error.status_code in (404, 405) else shorten(str(error.detail), 200)
        return refusal(words, error.status_code)

    for kind in (HTTPException, 404, 405):
        app.add_exception_handler(kind, http_error)


def main(arguments: list[str] | None = None) -> int:
    """Answer until stopped by a signal. Exit code 2 and one line on standard error for what can be mended."""
    parser = argparse.ArgumentParser(description="The embedded model server.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", action="append", default=[], help="list its models; the first one’s base is ‘base’")
    parser.add_argument("--port", type=int, default=0)
    wanted = parser.parse_args(arguments)
    use_home(wanted.home)
    set_up_logs()
    try:
        with take_port(wanted.port) as listening:
            app = build_app(EmbeddedServer(wanted.home, tuple(wanted.run)))
            config = uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=5, timeout_keep_alive=75, **server_settings()
            )
            print(f"http://{HOST}:{listening.getsockname()[1]}", flush=True)
            uvicorn.Server(config).run(sockets=[listening])
    except (PortInUse, ModelError, SettingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
