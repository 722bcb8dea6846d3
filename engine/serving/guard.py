"""Keeps web pages of other places off a server: for the lab's pages as for its model server. Knows no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
STRANGE_HOST = "This server does not answer to that host name."
TOO_LONG = "The request is over {} MiB: ask fewer questions at once."
STRANGE_ORIGIN = "Requests from other sites are refused."
Refuse = Callable[[str, int], Response]


class Guard:
    """ASGI middleware that refuses what a page of another site makes a browser send, and endless bodies.

    Such a request carries the page's origin, or, by a name that the page has resolve to this machine, an unknown host.
    `hosts`: the names that the server may be called by; None allows every name (for a server that is open on purpose).
    `any_port`: whether pages at other ports of these hosts may ask. `most_bytes`: of a body. `refuse`: the answer, of
    a sentence and a status.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None = LOCAL_HOSTS,
        any_port: bool = False,
        most_bytes: int | None = None,
        refuse: Refuse = PlainTextResponse,
    ) -> None:
        self.app, self.hosts, self.any_port, self.most_bytes, self.refuse = app, hosts, any_port, most_bytes, refuse

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
        elif self.most_bytes is not None and _length(headers) > self.most_bytes:
            await self.refuse(TOO_LONG.format(self.most_bytes // 2**20), 413)(scope, receive, send)
        else:
            await self.app(scope, self._cut_off(receive), send)

    def _strange(self, scope: Scope, headers: Headers) -> str:
        host, origin = _address(f"//{headers.get('host', '')}"), headers.get("origin")
        if self.hosts is not None and (host.hostname or "") not in self.hosts:
            return STRANGE_HOST
        if origin and not self._is_own(_address(origin), host):
            return STRANGE_ORIGIN
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        return STRANGE_ORIGIN if changes and headers.get("sec-fetch-site") == "cross-site" else ""

    def _is_own(self, origin: SplitResult, host: SplitResult) -> bool:
        if self.any_port:
            return self.hosts is None or (origin.hostname or "") in self.hosts
        return origin.netloc == host.netloc

    def _cut_off(self, receive: Receive) -> Receive:
        """A body whose length was not told is cut off where it grows too large."""
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message if read <= (self.most_bytes or read) else {"type": "http.disconnect"}

        return limited


def _length(headers: Headers) -> float:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else math.inf


def _address(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        return SplitResult("", "", "", "", "")
