"""Who waits for whom: a draft's changes come one after the other, those of another draft beside them.

All of it runs in threads, off the loop that answers the browsers. Reading a large file belongs to no lane, so that even
its own designer types on, and only a few are read at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread

EDITS_AT_A_TIME, FILES_AT_A_TIME = 16, 2
Answer = TypeVar("Answer")


class Lanes:
    """Built once for all visitors."""

    def __init__(self) -> None:
        self._lanes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._edits, self._files = CapacityLimiter(EDITS_AT_A_TIME), CapacityLimiter(FILES_AT_A_TIME)

    async def edit(self, draft_id: str, work: Callable[[], Answer]) -> Answer:
        """The outcome of `work`, done when everything that came earlier for the same draft is done."""
        lane = self._lanes.get(draft_id) or asyncio.Lock()
        self._lanes[draft_id] = lane
        async with lane:
            return await to_thread.run_sync(work, limiter=self._edits)

    async def read(self, work: Callable[[], Answer]) -> Answer:
        """The outcome of reading a file, which may take its time."""
        return await to_thread.run_sync(work, limiter=self._files)
