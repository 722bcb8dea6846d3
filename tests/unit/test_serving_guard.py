"""The guard of pages and model server against web pages of other places: hosts, origins, ports, IPv6, web sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from engine.serving.guard import LOCAL_HOSTS, STRANGE_HOST, STRANGE_ORIGIN, Guard

T = TypeVar("T")
OWN = "127.0.0.1:7860"


def carried_out(work: Coroutine[Any, Any, T]) -> T:
    """Its outcome, from a thread of its own: a browser that other tests drive has a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def ask(method: str, headers: dict[str, str], **settings: Any) -> httpx.Response:
    guarded = Guard(PlainTextResponse("inside"), **settings)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded)) as client:
            return await client.request(method, f"http://{OWN}/", headers={"Host": OWN, **headers})

    return carried_out(send())


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "inside"),
        ({"Host": "localhost"}, "inside"),
        ({"Host": "LOCALHOST:1"}, "inside"),
        ({"Host": "[::1]:7860"}, "inside"),
        ({"Host": "evil.example"}, STRANGE_HOST),
        ({"Host": "127.0.0.1.evil.example"}, STRANGE_HOST),
        ({"Host": "["}, STRANGE_HOST),
        ({"Host": ""}, STRANGE_HOST),
        ({"Origin": f"http://{OWN}"}, "inside"),
        ({"Origin": "http://127.0.0.1:3000"}, STRANGE_ORIGIN),
        ({"Origin": "https://evil.example"}, STRANGE_ORIGIN),
        ({"Origin": "null"}, STRANGE_ORIGIN),
        ({"Origin": "http://["}, STRANGE_ORIGIN),
        ({"Sec-Fetch-Site": "cross-site"}, STRANGE_ORIGIN),
        ({"Sec-Fetch-Site": "same-origin"}, "inside"),
    ],
)
def test_who_may_change_something(headers: dict[str, str], words: str) -> None:
    reply = ask("POST", headers)
    assert (reply.text, reply.status_code) == (words, 200 if words == "inside" else 403)


def test_a_link_from_another_site_leads_here() -> None:
    assert ask("GET", {"Sec-Fetch-Site": "cross-site"}).text == "inside"


def test_a_server_that_is_open_on_purpose_has_any_name_and_still_its_own_origin() -> None:
    there = {"Host": "lab.example:80"}
    assert ask("POST", {**there, "Origin": "http://lab.example:80"}, hosts=frozenset({"lab.example"})).text == "inside"
    assert (
        ask("POST", {**there, "Origin": "http://evil.example"}, hosts=frozenset({"lab.example"})).text == STRANGE_ORIGIN
    )


def test_pages_at_other_ports_of_this_machine_may_ask_where_that_is_said() -> None:
    assert ask("POST", {"Origin": "http://localhost:3000"}, any_port=True).text == "inside"
    assert ask("POST", {"Origin": "http://evil.example"}, any_port=True).text == STRANGE_ORIGIN


def test_a_web_socket_of_another_site_is_closed_before_it_opens() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    headers = [(b"host", OWN.encode()), (b"origin", b"http://evil.example")]
    guarded = Guard(PlainTextResponse("inside"), hosts=LOCAL_HOSTS)
    carried_out(guarded({"type": "websocket", "headers": headers}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
