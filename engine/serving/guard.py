"""Keeps pages of other sites off a server, and bodies that never end: for the lab's pages as for its model server."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
STRANGE_HOST = "This server does not answer to that host name."
TOO_LONG = "The request is over {} MiB: ask fewer questions at once."
TOO_SLOW = "The request's body did not arrive in time: send it again."
STRANGE_ORIGIN = "Requests from other sites are refused."
# A name or an address, and a port: nothing else belongs in Host or Origin.
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?", re.IGNORECASE | re.ASCII)
# How long a body may pause, and how long all of it may take.
PAUSE_SECONDS, BODY_SECONDS = 20.0, 300.0
Refuse = Callable[[str, int], Response]


class Guard:
    """ASGI middleware that refuses what a page of another site makes a browser send, and endless bodies.

    Such a request carries the page's origin, or, by a name that the page has resolve to this machine, an unknown host.
    `hosts`: the names that the server may be called by, in lower case. `any_port`: whether pages at other ports of
    these hosts may ask. `most_bytes`: of a body; `too_long`: the sentence, with a place for that many MiB. `refuse`:
    the answer, of a sentence and a status.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] = LOCAL_HOSTS,
        any_port: bool = False,
        most_bytes: int | None = None,
        refuse: Refuse = PlainTextResponse,
        too_long: str = TOO_LONG,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.app, self.hosts, self.any_port, self.refuse = app, hosts, any_port, refuse
        self.most_bytes = math.inf if most_bytes is None else most_bytes
        self.too_long = too_long.format((most_bytes or 0) // 2**20)
        self.pause_seconds = pause_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else None
        if headers is None:
            await self.app(scope, receive, send)
        elif words := self._strange(scope, headers):
            if scope["type"] == "http":
                await self.refuse(words, 403)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
        elif _length(headers) > self.most_bytes:
            await self.refuse(self.too_long, 413)(scope, receive, send)
        elif scope["type"] == "http":
            await _Body(self).read_by(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _strange(self, scope: Scope, headers: Headers) -> str:
        named, origin = headers.getlist("host"), headers.get("origin")
        host = _address(named[0]) if len(named) == 1 else None
        if host is None or host.hostname not in self.hosts:
            return STRANGE_HOST
        if origin and not self._is_own(origin, host):
            return STRANGE_ORIGIN
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        return STRANGE_ORIGIN if changes and headers.get("sec-fetch-site") == "cross-site" else ""

    def _is_own(self, origin: str, host: SplitResult) -> bool:
        scheme, _, rest = origin.partition("://")
        place = _address(rest) if scheme in ("http", "https") else None
        if place is None:
            return False
        return place.hostname in self.hosts if self.any_port else place.netloc.lower() == host.netloc.lower()


class _Body:
    """One request's body, counted and timed as it is read: its length need not have been told, nor told truly."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.read, self.ended, self.answered = 0, False, False
        self.refusal: Response | None = None

    async def read_by(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer. What it says of a body that was cut off is replaced by the reason."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + BODY_SECONDS

        async def limited() -> Message:
            if self.ended:
                return await receive()
            if self.refusal:
                return {"type": "http.disconnect"}
            try:
                patience = min(self.guard.pause_seconds, latest - loop.time())
                message = await asyncio.wait_for(receive(), max(0.0, patience))
            except TimeoutError:
                self.refusal = self.guard.refuse(TOO_SLOW, 408)
                return {"type": "http.disconnect"}
            self.read += len(message.get("body", b""))
            if self.read > self.guard.most_bytes:
                self.refusal = self.guard.refuse(self.guard.too_long, 413)
                return {"type": "http.disconnect"}
            self.ended = not message.get("more_body", False)
            return message

        async def told(message: Message) -> None:
            if self.refusal and not self.answered:
                return
            self.answered = True
            await send(message)

        try:
            await app(scope, limited, told)
        except Exception:
            if not self.refusal:
                raise
        if self.refusal and not self.answered:
            await self.refusal(scope, receive, send)


def _length(headers: Headers) -> float:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 20 else math.inf


def _address(text: str) -> SplitResult | None:
    if not HOST.fullmatch(text):
        return None
    try:
        place = urlsplit(f"//{text}")
        return place if place.port != 0 else None
    except ValueError:  # no address between the brackets, or a port that there is not
        return None
