"""Keep web pages from other places, and endless bodies, off a server that listens on the loopback address."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from engine.serving.protocol import ErrorResponse

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
MOST_BYTES = 64 * 2**20


class LoopbackGuard:
    """ASGI middleware. A page of another site, open in a browser on this machine, can send requests to 127.0.0.1:
    they carry its Origin, or (by a name that resolves to 127.0.0.1) its Host. Both are refused."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        length = headers.get("content-length", "0")
        if _host(f"//{headers.get('host', '')}") not in LOOPBACK:
            await _refuse(send, 403, "this server answers requests to 127.0.0.1 and localhost only")
        elif "origin" in headers and _host(headers["origin"]) not in LOOPBACK:
            await _refuse(send, 403, "this server does not answer web pages of other places")
        elif not length.isdecimal() or int(length) > MOST_BYTES:
            await _refuse(send, 413, f"the request is over {MOST_BYTES // 2**20} MiB: ask fewer questions at once")
        else:
            await self.app(scope, _counting(receive), send)


def _counting(receive: Any) -> Any:
    """A body without a declared length is cut off where it grows too large."""
    read = 0

    async def limited() -> Any:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= MOST_BYTES else {"type": "http.disconnect"}

    return limited


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


async def _refuse(send: Any, status: int, words: str) -> None:
    body = ErrorResponse.of(status, words).model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
