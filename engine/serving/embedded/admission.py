"""How much is taken in at once: what requests and replies hold in memory is bounded, whoever asks, sends or reads.

What does not fit waits before it is read. A client that sends or reads too slowly loses its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.serving.embedded.limits import MOST_REPLY_BYTES
from engine.serving.guard import SAFE_METHODS

# Of a request's body. In memory it takes up to sixty times as much while it is read.
MOST_BYTES = 8 * 2**20
# Of all bodies, and of all replies, that are held at the same time.
BODIES_BYTES = 4 * MOST_BYTES
REPLIES_BYTES = 4 * MOST_REPLY_BYTES
# What the smallest request takes beside its body.
LEAST_BYTES = 16 * 2**10
PIECE_BYTES = 64 * 2**10
# For a whole body to come, and for a whole reply to be taken.
BODY_SECONDS = 60.0
REPLY_SECONDS = 120.0


class Room:
    """So many bytes for all together, of which one may take half of what is left: small ones always find some."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Wait for so much room, and hold it meanwhile. Who wants more than there can be waits for all of it."""
        size = min(size, self.most // 2)
        while size > (self.most - self.used) / 2:
            await self._freed.wait()
        self.used += size
        try:
            yield
        finally:
            self.used -= size
            self._freed.set()
            self._freed = asyncio.Event()


class TooSlow(Exception):
    """The client does not take its reply."""


class Admission:
    """ASGI middleware that lets requests in as there is room for them.

    An endpoint takes room for its reply by `scope["replies"](size)`; it is given back when the reply has been sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.bodies, self.replies = Room(BODIES_BYTES), Room(REPLIES_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when there is room for its body."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        size = int(length) if length.isdecimal() else MOST_BYTES
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.bodies.taken(LEAST_BYTES + size))

            async def take(size: int) -> None:
                await held.enter_async_context(self.replies.taken(size))

            try:
                await self.app({**scope, "replies": take}, _in_time(receive), _in_pieces(send))
            except TooSlow:
                return  # without an end of the reply, so that the connection is closed


def _in_time(receive: Receive) -> Receive:
    """A body that does not come in time counts as a client that has gone."""
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS
    whole = False

    async def received() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return received


def _in_pieces(send: Send) -> Send:
    """Each piece waits until the client has taken what was sent before, which the server would keep otherwise."""
    deadline: float | None = None

    async def sent(message: Message) -> None:
        nonlocal deadline
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or not body:
            await send(message)
            return
        deadline = deadline or asyncio.get_running_loop().time() + REPLY_SECONDS
        for start in range(0, len(body), PIECE_BYTES):
            more = message.get("more_body", False) or start + PIECE_BYTES < len(body)
            try:
                async with asyncio.timeout_at(deadline):
                    await send({**message, "body": body[start : start + PIECE_BYTES], "more_body": more})
            except TimeoutError:
                raise TooSlow from None

    return sent
