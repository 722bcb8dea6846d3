"""Who may be on which GPU: the ledger of their memory for model servers, and whose turn it is.

Each vLLM takes the part of the memory that it is started with, for its weights and its cache. What measures itself
while another one starts measures wrongly, so they start one after another. None is ended while it starts, while it
answers, or before it has answered: else three people with three large models would start servers for ever, and get no
answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from engine.serving import traffic

# Of a GPU's memory, for all servers together.
ALL_PARTS = 0.9
ROUNDING = 1e-9
# A server that has answered leaves for another one once nobody asked it for so long, or after its turn is over.
IDLE_SECONDS, TURN_SECONDS = 3.0, 60.0
# One that nobody asked at all, since whoever wanted it has gone.
UNCLAIMED_SECONDS = 30.0
# Who waits asks again many times a second; who did not for so long, waits no more.
GONE_SECONDS = 5.0
POLL_SECONDS = 0.05


_starting = threading.Lock()


@contextmanager
def turn_to_start(needed: bool, end: threading.Event) -> Iterator[None]:
    """While one vLLM starts on a GPU no other one does, since each measures what memory is free. Ends with `end`."""
    mine = False
    while needed and not mine and not end.is_set():
        mine = _starting.acquire(timeout=POLL_SECONDS)
    try:
        yield
    finally:
        if mine:
            _starting.release()


class Occupant(Protocol):
    """A server, as the ledger sees it. devices: the GPUs that it stands on; part: of the memory of each of them;
    ready_since: by `time.monotonic`."""

    ready_since: float
    devices: tuple[str, ...]

    @property
    def state(self) -> str:
        """As in `storage.servers.ServerState`."""

    @property
    def part(self) -> float:
        """What it was started with."""

    @property
    def url(self) -> str:
        """Its address."""


Server = TypeVar("Server", bound=Occupant)


class Room(Generic[Server]):
    """The ledger of all GPUs. Not safe to call from several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._waiting: dict[Hashable, tuple[float, float]] = {}  # since when, and when it asked last

    def make(
        self,
        key: Hashable,
        part: float,
        devices: Collection[str],
        others: Iterable[Server],
        end: Callable[[Server], None],
    ) -> bool:
        """Whether a server `key` that takes `part` of each of the devices may start now, beside the living `others`.

        Of these, those that have had their turn are ended where that makes room. Ask again until it is True; who asked
        first comes first.
        """
        now = self.clock()
        self._waiting = {k: (since, last) for k, (since, last) in self._waiting.items() if now - last < GONE_SECONDS}
        self._waiting[key] = (self._waiting.get(key, (now, now))[0], now)
        there = list(others)
        first = min(self._waiting, key=lambda k: self._waiting[k][0])
        if first != key or any(server.state in ("starting", "restarting") for server in there):
            return False

        def full(without: Collection[Server]) -> set[str]:
            """The devices on which there is no room for it, though these were not there."""
            staying = [server for server in there if server not in without]
            taken = {device: sum(s.part for s in staying if device in s.devices) for device in devices}
            return {device for device, parts in taken.items() if parts + part > ALL_PARTS + ROUNDING}

        chosen: list[Server] = []
        for server in sorted((s for s in there if self.may_leave(s)), key=lambda s: traffic.last_answer(s.url)):
            if full(chosen).intersection(server.devices):
                chosen.append(server)
        if full(chosen):
            return False
        for server in list(chosen):
            if not full([other for other in chosen if other is not server]):
                chosen.remove(server)  # those chosen after it make room enough on all its devices
        for server in chosen:
            end(server)
        del self._waiting[key]
        return True

    def may_leave(self, server: Occupant) -> bool:
        """Whether a server may be ended for another one: it has had its turn, or nobody wants it."""
        if server.state == "failed":
            return True
        if server.state != "ready" or traffic.is_asked(server.url):
            return False
        now, answered = self.clock(), traffic.last_answer(server.url)
        if answered < server.ready_since:
            return now - server.ready_since > UNCLAIMED_SECONDS
        return now - answered > IDLE_SECONDS or now - server.ready_since > TURN_SECONDS
