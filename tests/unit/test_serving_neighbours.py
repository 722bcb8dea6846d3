"""Who asks nonsense, too much, or too slowly harms nobody beside: each request answers for itself."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import psutil
import pytest
from starlette.types import Message, Receive, Scope, Send

from engine.serving.client import Refused, ServerClient, in_parts
from engine.serving.embedded import admission, replies
from engine.serving.embedded.admission import Admission, Room
from engine.serving.embedded.decoding import Continuation, Wish
from engine.serving.embedded.limits import MOST_REPLY_BYTES
from engine.serving.embedded.replies import CompletionJob
from engine.serving.embedded.residents import Resident
from engine.serving.embedded.scheduling import Alone, Completion, Scheduler
from engine.serving.embedded.server import EmbeddedServer
from engine.serving.protocol import CompletionRequest
from tests.loops import run_apart
from tests.unit.serving_home import add_run, serving
from tests.unit.tiny_models import build_qwen2

MODEL = "aaaa/generalised@4"
GOOD: list[dict[str, Any]] = [
    {"prompt": [5, 6, 7], "temperature": 0},
    {"prompt": [5, 6, 8], "temperature": 0, "logprobs": 2, "echo": True},
    {"prompt": [[5, 9], [4]], "temperature": 1.3, "seed": 3, "n": 2},
    {"prompt": "Who is the mother of Lena Vogt?", "temperature": 0.7, "top_p": 0.8, "seed": 1, "prompt_logprobs": 1},
]
# What a row may ask for at the edge of sense; all of it can be answered.
EXTREME: list[dict[str, Any]] = [
    {"top_p": 1e-46},
    {"top_p": 5e-324, "temperature": 1e-5},
    {"temperature": 1e-5},
    {"temperature": 1e308},
    {"temperature": 1e30, "top_p": 1e-9},
    {"temperature": 5e-324},
    {"seed": 2**63 - 1, "n": 3},
    {"seed": -(2**63)},
    {"max_tokens": 10**18},
    {"stop": ["\x00", "e", "<|endoftext|>"], "skip_special_tokens": False},
    {"logprobs": 1000, "max_tokens": 2},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerClient, EmbeddedServer]]:
    home = tmp_path_factory.mktemp("home")
    add_run(home, "aaaa", build_qwen2(home / "models"))
    with serving(home, "aaaa") as (client, server):
        yield client, server


class Plug(Alone):
    """Work that lasts until it is let go: what is submitted meanwhile is computed together."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.begun, self.go = threading.Event(), threading.Event()

    def work(self, resident: Resident) -> Iterator[None]:
        """Wait."""
        self.begun.set()
        self.go.wait(60)
        self.future.set_result(None)
        yield


class Breaking(CompletionJob):
    """A request in which a row fails at its second token, in a way that nobody thought of."""

    def wishes(self, resident: Resident) -> list[Wish]:
        """As asked, with what breaks."""

        def breaks(tokens: list[int]) -> str | None:
            if len(tokens) > 1:
                raise ZeroDivisionError("nobody thought of this")
            return None

        return [replace(wish, stops=breaks) for wish in super().wishes(resident)]


def job(body: dict[str, Any], kind: type[CompletionJob] = CompletionJob) -> CompletionJob:
    return kind(CompletionRequest(model=MODEL, **{"max_tokens": 6, "ignore_eos": True, **body}), MODEL)


def together(server: EmbeddedServer, jobs: list[CompletionJob]) -> None:
    """Compute jobs as one group."""
    scheduler, plug = Scheduler(server.residents, 1), Plug()
    scheduler.submit(plug)
    assert plug.begun.wait(60)
    for one in jobs:
        scheduler.submit(one)
    assert scheduler.waiting() == 1, "they are not computed together"
    plug.go.set()
    for one in jobs:
        one.future.exception(60)
    scheduler.stop()


def answers(one: Completion) -> list[tuple[list[int], str | None]]:
    texts: list[Continuation] = one.future.result(60)[1]
    return [(text.tokens, text.finish) for text in texts]


def alone(server: EmbeddedServer) -> list[Any]:
    found = []
    for body in GOOD:
        one = job(body)
        together(server, [one])
        found.append(answers(one))
    return found


@pytest.mark.parametrize("extreme", EXTREME, ids=str)
def test_an_extreme_request_is_answered_and_its_neighbours_as_ever(served: Any, extreme: dict[str, Any]) -> None:
    _, server = served
    right = alone(server)
    odd = job({"prompt": [5, 6, 7], "temperature": 1.0, **extreme})
    jobs = [job(body) for body in GOOD]
    together(server, [*jobs[:2], odd, *jobs[2:]])
    assert [answers(one) for one in jobs] == right
    assert all(tokens for tokens, _ in answers(odd))
    if extreme.get("top_p", 1) < 1e-40:
        greedy = job({"prompt": [5, 6, 7], "temperature": 0})
        together(server, [greedy])
        assert answers(odd) == answers(greedy), "the likeliest token is kept"
    resident, texts = odd.future.result()
    assert odd.finish(resident, texts).choices


@pytest.mark.parametrize("places", [(0,), (2,), (4,), (0, 1, 3), (0, 1, 2, 3, 4, 5)])
def test_what_breaks_a_request_breaks_only_that_one(served: Any, places: tuple[int, ...]) -> None:
    _, server = served
    right = alone(server)
    good = [job(body) for body in GOOD]
    jobs: list[CompletionJob] = list(good)
    broken = [job({"prompt": [[5, 6, 7], [8]]}, Breaking) for _ in places]
    for place, one in zip(places, broken, strict=True):
        jobs.insert(place, one)
    together(server, jobs)
    assert [answers(one) for one in good] == right
    assert all(isinstance(one.future.exception(), ZeroDivisionError) for one in broken)


LONG = [[5] * 60]
TOO_LARGE: list[dict[str, Any]] = [
    {"prompt": LONG, "prompt_logprobs": 500, "n": 300, "max_tokens": 1},
    {"prompt": LONG * 300, "prompt_logprobs": 500, "max_tokens": 1},
    {"prompt": LONG * 300, "logprobs": 500, "echo": True, "max_tokens": 0},
    {"prompt": LONG * 10, "logprobs": 500, "echo": True, "n": 1000},
    {"prompt": ["A"] * 500, "logprobs": 1000, "max_tokens": 60},
    {"prompt": ["A"] * 10, "n": 1000, "logprobs": 0, "max_tokens": 10**18},
    {"prompt": "A " * 30, "prompt_logprobs": 1000, "n": 9999, "stream": True},
]


@pytest.mark.parametrize("body", TOO_LARGE, ids=lambda body: ",".join(body))
def test_a_reply_that_would_be_too_large_is_refused_before_it_is_computed(served: Any, body: dict[str, Any]) -> None:
    client, _ = served
    began = time.process_time()
    reply = httpx.post(f"{client.base_url}/v1/completions", json={"model": MODEL, **body}, timeout=60)
    assert reply.status_code == 400 and "and may take 16 MiB: ask for fewer" in reply.json()["error"]["message"]
    assert time.process_time() - began < 5


def test_too_many_options_are_refused(served: Any) -> None:
    client, _ = served
    with pytest.raises(Refused, match="and may take 16 MiB"):
        client.score_options(MODEL, [([5], 0)] * 1000, [[[1 + n % 400] for n in range(1000)]])


def test_a_prompt_is_scored_only_where_its_scores_fit_into_memory(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = served
    monkeypatch.setattr(replies, "free_memory", lambda: 4 * 12 * 512 * 20)
    assert client.complete(MODEL, [[5] * 20], prompt_logprobs=1, max_tokens=1).choices
    assert client.complete(MODEL, [[5] * 60], logprobs=1, max_tokens=1).choices
    for more in ({"prompt_logprobs": 0}, {"echo": True, "logprobs": 0, "max_tokens": 0}):
        with pytest.raises(Refused, match="a prompt of 21 tokens need more memory than is free: score at most 20"):
            client.complete(MODEL, [[5], [5] * 21], **{"max_tokens": 1, **more})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"prompt": LONG * 20, "prompt_logprobs": 30, "max_tokens": 1},
        {"prompt": LONG * 10, "logprobs": 30, "echo": True, "max_tokens": 2, "return_token_ids": True},
        {"prompt": [[5]] * 20, "logprobs": 40, "max_tokens": 40, "return_tokens_as_token_ids": True},
        {"prompt": ["Lena Vogt"] * 200, "echo": True, "max_tokens": 4, "return_token_ids": True},
    ],
    ids=lambda body: ",".join(body),
)
def test_replies_are_about_as_large_as_was_thought(served: Any, body: dict[str, Any], stream: bool) -> None:
    client, _ = served
    thought = job(body).size
    reply = httpx.post(f"{client.base_url}/v1/completions", json={"model": MODEL, **body, "stream": stream}, timeout=60)
    assert reply.status_code == 200 and len(reply.content) < 1.2 * thought < MOST_REPLY_BYTES


def test_a_client_cuts_what_it_asks_into_requests_that_are_answered(served: Any) -> None:
    client, _ = served
    pairs = [([5] * 58, [6, 7])] * 3400
    scores = client.score(MODEL, pairs[:1])
    assert [list(p) for p in in_parts([3, 3, 9, 1, 1], lambda n: n, 6)] == [[3, 3], [9], [1, 1]]
    assert client.score(MODEL, pairs[:3]) == pytest.approx(scores * 3) and not client.score(MODEL, [])
    assert len(list(in_parts(pairs, lambda pair: len(pair[0]) + len(pair[1]), 100_000))) == 3


def test_room_is_bounded_and_small_ones_pass_large_ones() -> None:
    async def run() -> tuple[int, list[str]]:
        room, seen, most = Room(64), [], 0

        async def hold(name: str, size: int, until: asyncio.Event) -> None:
            nonlocal most
            async with room.taken(size):
                most = max(most, room.used)
                seen.append(name)
                await until.wait()

        go = asyncio.Event()
        large = [asyncio.create_task(hold("large", 16, go)) for _ in range(9)]
        await asyncio.sleep(0)
        async with room.taken(1):
            seen.append("small")
        waiting = asyncio.create_task(hold("whole", 10**9, go))
        await asyncio.sleep(0)
        large.pop().cancel()
        go.set()
        await asyncio.gather(*large, waiting)
        assert room.used == 0
        return most, seen

    most, seen = run_apart(run())
    assert most <= 64 and seen[:4] == ["large"] * 3 + ["small"] and seen.count("large") == 8 and seen[-1] == "whole"


def test_a_client_that_sends_or_reads_too_slowly_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(admission, "REPLY_SECONDS", 0.05)
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["replies"](100)
        message = await receive()
        events.append(message["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (3 * admission.PIECE_BYTES)})

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent: list[Message] = []

    async def stuck(message: Message) -> None:
        sent.append(message)
        if len(sent) > 2:
            await asyncio.Event().wait()

    middleware = Admission(app)
    run_apart(middleware({"type": "http", "method": "POST", "headers": []}, never, stuck))
    assert events == ["http.disconnect"] and len(sent) == 3 and sent[1]["more_body"]
    assert middleware.bodies.used == 0 == middleware.replies.used


def test_readers_that_stop_hold_up_nobody_and_leave_nothing(served: Any) -> None:
    client, server = served
    handles = psutil.Process().num_fds()
    port = int(client.base_url.rsplit(":", 1)[1])
    body = json.dumps({"model": MODEL, "prompt": LONG * 30, "prompt_logprobs": 100, "max_tokens": 1}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    raw = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    for one in raw:
        one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert client.complete(MODEL, [[5, 6, 7]], max_tokens=2).choices
    for one in raw:
        one.close()
    waited = time.monotonic()
    while server.scheduler.waiting() or any(held.users for held in server.residents._held.values()):
        assert time.monotonic() - waited < 60, "the work of clients that have gone goes on"
        time.sleep(0.05)
    while psutil.Process().num_fds() > handles:
        assert time.monotonic() - waited < 60, "connections of clients that have gone stay open"
        time.sleep(0.05)
    assert client.complete(MODEL, [[5, 6, 7]], max_tokens=2).choices
