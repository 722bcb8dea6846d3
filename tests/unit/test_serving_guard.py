"""The guard of pages and model server against web pages of other places: hosts, origins, ports, IPv6, web sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.serving.guard import LOCAL_HOSTS, STRANGE_HOST, STRANGE_ORIGIN, TOO_LONG, TOO_SLOW, Guard

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
        ({"Host": "localhost."}, STRANGE_HOST),
        ({"Host": "localhost:"}, STRANGE_HOST),
        ({"Host": "localhost:99999999"}, STRANGE_HOST),
        ({"Host": "localhost:65536"}, STRANGE_HOST),
        ({"Host": "[127.0.0.1]"}, STRANGE_HOST),
        ({"Host": "[:::::]:7860"}, STRANGE_HOST),
        ({"Host": "evil.example@localhost"}, STRANGE_HOST),
        ({"Host": "localhost@evil.example"}, STRANGE_HOST),
        ({"Host": "localhost/evil.example"}, STRANGE_HOST),
        ({"Host": "localhost#.evil.example"}, STRANGE_HOST),
        ({"Host": "[::1].evil.example"}, STRANGE_HOST),
        ({"Host": "[::1%25eth0]"}, STRANGE_HOST),
        ({"Host": "localhost, evil.example"}, STRANGE_HOST),
        ({"Host": ""}, STRANGE_HOST),
        ({"Origin": f"http://{OWN}"}, "inside"),
        ({"Origin": "http://127.0.0.1:3000"}, STRANGE_ORIGIN),
        ({"Origin": "https://evil.example"}, STRANGE_ORIGIN),
        ({"Origin": "null"}, STRANGE_ORIGIN),
        ({"Origin": f"file://{OWN}"}, STRANGE_ORIGIN),
        ({"Origin": f"http://{OWN}@evil.example"}, STRANGE_ORIGIN),
        ({"Origin": f"http://evil.example@{OWN}"}, STRANGE_ORIGIN),
        ({"Origin": f"http://{OWN}/"}, STRANGE_ORIGIN),
        ({"Origin": f"http://{OWN} http://evil.example"}, STRANGE_ORIGIN),
        ({"Origin": OWN}, STRANGE_ORIGIN),
        ({"Origin": "http://["}, STRANGE_ORIGIN),
        ({"Origin": "http://[127.0.0.1]"}, STRANGE_ORIGIN),
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


@pytest.mark.parametrize("hosts", [[], [OWN, "evil.example"], ["evil.example", OWN], [OWN, OWN]])
def test_a_request_names_one_host(hosts: list[str]) -> None:
    assert sent_in_pieces([b""], [("host", host) for host in hosts])[0] == 403


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads the body and says how long it is, or what goes wrong with it."""
    try:
        body = await Request(scope, receive).body()
        reply = PlainTextResponse(str(len(body)))
    except ClientDisconnect:
        reply = PlainTextResponse("the app's own words", 500)
    await reply(scope, receive, send)


def sent_in_pieces(
    pieces: list[bytes], headers: list[tuple[str, str]], app: ASGIApp = read_all, **settings: Any
) -> tuple[int, str]:
    """Status and text of the answer to a body that comes in pieces; after the last one it pauses for ever."""
    told: list[Message] = []
    waiting: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        told.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
    carried_out(Guard(app, most_bytes=2**20, **settings)(scope, receive, send))
    return told[0]["status"], b"".join(message.get("body", b"") for message in told).decode()


@pytest.mark.parametrize("length", [None, "10", "1048576"])
def test_a_body_that_grows_too_long_is_refused_in_words_whatever_its_length_was_said_to_be(length: str | None) -> None:
    headers = [("host", OWN)] + ([("content-length", length)] if length else [])
    assert sent_in_pieces([b" " * 2**19] * 3, headers) == (413, TOO_LONG.format(1))


@pytest.mark.parametrize("length", ["1048577", "9" * 30, "-1", "1e3", "\xb2", ""])
def test_a_length_that_is_too_long_or_none_is_refused_unread(length: str) -> None:
    assert sent_in_pieces([], [("host", OWN), ("content-length", length)]) == (413, TOO_LONG.format(1))


def test_a_body_that_pauses_is_not_waited_for() -> None:
    assert sent_in_pieces([b"a"], [("host", OWN)], pause_seconds=0.05) == (408, TOO_SLOW)


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()


async def answering_first(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("answered")(scope, receive, send)
    await Request(scope, receive).body()


def test_an_app_that_ends_over_a_refused_body_or_has_answered_changes_nothing() -> None:
    assert sent_in_pieces([b" " * 2**19] * 3, [("host", OWN)], raising) == (413, TOO_LONG.format(1))
    assert sent_in_pieces([b" " * 2**19] * 3, [("host", OWN)], answering_first) == (200, "answered")
