"""The embedded model server: transformers behind the same protocol as vLLM, for machines without it.

python -m engine.serving.embedded.server --home DIR [--run RUN] [--port N]

Listens on 127.0.0.1 only. It finds models by name in the lab's home (catalogue.py), so nothing need be loaded by hand;
`/v1/load_lora_adapter` takes adapters from inside the home only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from engine.checks import shorten
from engine.evaluation.batches import EvaluationError
from engine.hardware import SettingError, cpu_threads
from engine.models.device import choose_device
from engine.models.source import ModelError
from engine.serving.embedded.catalogue import Catalogue, UnknownModel
from engine.serving.embedded.replies import CompletionJob, OptionsJob
from engine.serving.embedded.residents import Residents
from engine.serving.embedded.scheduling import Gone, Job, Scheduler
from engine.serving.guard import Guard
from engine.serving.listening import HOST, PortInUse, take_port
from engine.serving.protocol import (
    LOAD_BY_NAME,
    SCORE_ANSWERS,
    SCORE_OPTIONS,
    CompletionRequest,
    CompletionResponse,
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
MOST_BYTES = 64 * 2**20
UNKNOWN_PATH = "there is nothing at this address: ask POST /v1/completions, or GET /v1/models"


class EmbeddedServer:
    """The state behind the endpoints. `runs`: those whose models `/v1/models` lists from the start."""

    def __init__(self, home: Path, runs: tuple[str, ...] = (), memory: int | None = None) -> None:
        self.device = choose_device()
        self.catalogue = Catalogue(home)
        self.residents = Residents(self.catalogue, memory)
        # Torch's own threads serve a large model better; small ones are computed side by side.
        self.scheduler = Scheduler(self.residents, cpu_threads() if self.device.type == "cpu" else 1)
        self.runs = runs
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

    def load(self, name: str, folder: str) -> None:
        """Bring an adapter and load it. Raises ModelError."""
        self.catalogue.bring(name, folder)
        try:
            with self.residents.holding(name):
                pass
        except ModelError:
            self.catalogue.send_away(name)
            raise

    def unload(self, name: str) -> None:
        """Forget an adapter, or take a checkpoint out of memory. Raises UnknownModel."""
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
    app.add_middleware(Guard, any_port=True, most_bytes=MOST_BYTES, refuse=_refusal)

    @app.get("/health")
    async def health() -> Response:
        return _json(
            Health(
                server="embedded",
                extensions=[SCORE_OPTIONS, SCORE_ANSWERS, LOAD_BY_NAME],
                loaded=server.residents.loaded(),
                device=str(server.device),
            )
        )

    @app.get("/v1/models")
    async def models() -> Response:
        return _json(ModelList(data=await asyncio.to_thread(server.models)))

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        job = CompletionJob(body, body.model or "base")
        server.scheduler.submit(job)
        resident, texts = await _result(job, request)
        reply = await asyncio.to_thread(job.finish, resident, texts)
        if body.stream:
            return StreamingResponse(_events(reply), media_type="text/event-stream")
        return await asyncio.to_thread(_json, reply)

    @app.post(f"/v1/{SCORE_OPTIONS}")
    async def score_options(body: OptionsRequest, request: Request) -> Response:
        job = OptionsJob(body)
        server.scheduler.submit(job)
        return await asyncio.to_thread(_json, await _result(job, request))

    @app.post("/v1/load_lora_adapter")
    async def load_lora_adapter(body: LoadAdapterRequest) -> Response:
        await asyncio.to_thread(server.load, body.lora_name, body.lora_path)
        return Response(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload_lora_adapter(body: UnloadAdapterRequest) -> Response:
        await asyncio.to_thread(server.unload, body.lora_name)
        return Response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    _answer_errors(app)
    return app


async def _result(job: Job, request: Request) -> Any:
    """The job's result; when the client goes away meanwhile, the job is dropped."""
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


async def _events(reply: CompletionResponse) -> AsyncIterator[str]:
    """The finished reply as a stream: one event for each choice. (Answers here are short; none is sent in parts.)"""
    head = reply.model_dump(exclude={"choices", "usage"})
    for choice in reply.choices:
        yield f"data: {json.dumps({**head, 'choices': [choice.model_dump(exclude_none=True)]}, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _json(message: Message, status: int = 200) -> Response:
    return Response(message.model_dump_json(), status, media_type="application/json")


def _refusal(words: str, status: int) -> Response:
    return _json(ErrorResponse.of(status, words), status)


def _answer_errors(app: FastAPI) -> None:
    """Every error as the protocol has it, in words."""
    Handler = Callable[[Request, Any], Awaitable[Response]]

    def refusing(status: int, words: Callable[[Any], str]) -> Handler:
        async def answer(_: Request, error: Any) -> Response:
            if status >= 500:
                logger.error("a request failed", exc_info=error)
            return _json(ErrorResponse.of(status, words(error), param=getattr(error, "param", None)), status)

        return answer

    app.add_exception_handler(UnknownModel, refusing(404, str))
    app.add_exception_handler(ModelError, refusing(400, str))
    app.add_exception_handler(EvaluationError, refusing(500, str))
    app.add_exception_handler(RequestValidationError, refusing(400, _validation_words))
    app.add_exception_handler(Gone, refusing(CLIENT_CLOSED, lambda _: "the client has gone"))
    app.add_exception_handler(
        torch.OutOfMemoryError, refusing(503, lambda _: "the device’s memory is full: ask fewer questions at once")
    )
    app.add_exception_handler(Exception, refusing(500, lambda error: f"the server failed: {shorten(repr(error), 200)}"))

    async def http_error(_: Request, error: Any) -> Response:
        words = UNKNOWN_PATH if error.status_code in (404, 405) else shorten(str(error.detail), 200)
        return _refusal(words, error.status_code)

    for kind in (HTTPException, 404, 405):
        app.add_exception_handler(kind, http_error)


def _validation_words(error: RequestValidationError) -> str:
    first = error.errors()[0] if error.errors() else {}
    if first.get("type") == "json_invalid":
        return "the request is not JSON: see docs/asking.md for an example"
    place = ".".join(str(p) for p in first.get("loc", ())[1:3]) or "the request"
    return f"{shorten(place)}: {shorten(str(first.get('msg', 'cannot be read')), 200)}"


def main(arguments: list[str] | None = None) -> int:
    """Answer until stopped by a signal. Exit code 2 and one line on standard error for what can be mended."""
    parser = argparse.ArgumentParser(description="The embedded model server.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", action="append", default=[], help="list its models; the first one’s base is ‘base’")
    parser.add_argument("--port", type=int, default=0)
    wanted = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with take_port(wanted.port) as listening:
            app = build_app(EmbeddedServer(wanted.home, tuple(wanted.run)))
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, timeout_keep_alive=75)
            print(f"http://{HOST}:{listening.getsockname()[1]}", flush=True)
            uvicorn.Server(config).run(sockets=[listening])
    except (PortInUse, ModelError, SettingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
