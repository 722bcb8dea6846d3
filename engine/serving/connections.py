"""How many connections a server holds, and how long it waits for a request on one. Knows no torch."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

# A request's head, from the connection's start (or its first byte) to its last.
HEAD_SECONDS = 20.0
# Some programs walk through every number that could be a file's.
MOST_FILES = 65_536
MOST_CONNECTIONS, FEWEST_CONNECTIONS = 1000, 16
# Beyond the bound, connections are still accepted to be told that the server is busy.
TOLD_BUSY = 16


def server_settings() -> dict[str, Any]:
    """Settings of uvicorn that bound its connections: a third of the files that this process may open, at most 1000.

    The other files are for databases and what is read. Whoever connects is who the socket says, whatever a header says.
    """
    most = max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, files_allowed() // 3))
    protocol = type("BoundedConnection", (Connection,), {"most": most, "idle": {}})
    return {"http": protocol, "ws": "none", "limit_concurrency": most, "proxy_headers": False, "server_header": False}


def files_allowed() -> int:
    """How many files this process may have open, after raising that to as many as it may have (at most 65,536)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Connection(H11Protocol):
    """A connection that is closed when its request's head doesn't come in time, or is needed for one that asks.

    `most`: connections at a time. `idle`: those of this server on which nothing is asked, the longest first. How long
    a head may be h11 bounds itself.
    """

    most: int
    idle: dict[Connection, None]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; where there are too many connections, the one that has been idle longest ends."""
        super().connection_made(transport)
        if len(self.connections) >= self.most:
            longest = next(iter(self.idle), None)
            if longest is not None:
                longest._end()
            elif len(self.connections) >= self.most + TOLD_BUSY:
                return self._end()
        self._rest()

    def data_received(self, data: bytes) -> None:
        """Read on. Bytes that make no request are waited for no longer than a head is."""
        super().data_received(data)
        if self._asking:
            self._stop_clock()
            self.idle.pop(self, None)
        elif not self.transport.is_closing():
            self._rest()

    def on_response_complete(self) -> None:
        """Nothing is asked any more, unless the next request is there already. (uvicorn ends what stays silent.)"""
        super().on_response_complete()
        if not self._asking and not self.transport.is_closing():
            self.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_clock()
        self.idle.pop(self, None)
        super().connection_lost(exc)

    @property
    def _asking(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _rest(self) -> None:
        self.idle.setdefault(self, None)
        if self._clock is None:
            self._clock = self.loop.call_later(HEAD_SECONDS, self._end)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self) -> None:
        self._stop_clock()
        self.idle.pop(self, None)
        # Not when it is lost, a moment later: whoever asks meanwhile would be told that there are too many.
        self.connections.discard(self)
        if not self.transport.is_closing():
            self.transport.abort()
