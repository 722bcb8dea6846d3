"""Keeps web pages of other places off a server: for the lab's pages as for its model server. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
STRANGE_HOST = "This server does not answer to that host name."
STRANGE_ORIGIN = "Requests from other sites are refused."
Refusal = Callable[[str, int], Response]


class OriginGuard:
    """ASGI middleware that refuses what a page of another site makes a browser send.

    Such a request carries the page's origin, or, by a name that the page has resolve to this machine, an unknown host.
    `hosts`: the names that the server may be called by; None allows every name (for a server that is open on purpose).
    `any_port`: whether pages at other ports of these hosts may ask. `refuse`: the answer, of a sentence and a status.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None = LOCAL_HOSTS,
        any_port: bool = False,
        refuse: Refusal = PlainTextResponse,
    ) -> None:
        self.app, self.hosts, self.any_port, self.refuse = app, hosts, any_port, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        words = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if words is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self.refuse(words, 403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = _address(f"//{headers.get('host', '')}"), headers.get("origin")
        if self.hosts is not None and (host.hostname or "") not in self.hosts:
            return STRANGE_HOST
        if origin and not self._is_own(_address(origin), host):
            return STRANGE_ORIGIN
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        return STRANGE_ORIGIN if changes and headers.get("sec-fetch-site") == "cross-site" else None

    def _is_own(self, origin: SplitResult, host: SplitResult) -> bool:
        if self.any_port:
            return self.hosts is None or (origin.hostname or "") in self.hosts
        return origin.netloc == host.netloc


class BodyLimit:
    """ASGI middleware that refuses a body over `most` bytes, and cuts it off where its length was not told."""

    def __init__(self, app: ASGIApp, most: int, refuse: Refusal = PlainTextResponse) -> None:
        self.app, self.most, self.refuse = app, most, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most:
            words = f"the request is over {self.most // 2**20} MiB: ask fewer questions at once"
            await self.refuse(words, 413)(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message if read <= self.most else {"type": "http.disconnect"}

        await self.app(scope, limited, send)


def _address(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        return SplitResult("", "", "", "", "")
