"""A vLLM that somebody else runs beside the lab, such as vLLM's own container: ROTE_LAB_VLLM_URL=http://vllm:8000.

It serves one prepared base of the lab's home, which both see at the same path, and takes the adapters of its runs.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from engine.serving.client import ServerClient, ServingError

VARIABLE = "ROTE_LAB_VLLM_URL"
LOOK_SECONDS = 5.0


class Neighbour:
    """`adapters` and `lock` are as a `ModelProcess` has them."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url.rstrip("/"), home
        self.adapters: OrderedDict[str, int] = OrderedDict()
        self.lock = threading.Lock()
        self._looked = -LOOK_SECONDS
        self._serves: str | None = None

    @classmethod
    def named(cls, home: Path) -> Neighbour | None:
        """The one that the environment names, if it names one."""
        url = os.environ.get(VARIABLE, "").strip()
        return cls(url, home) if url else None

    def serves(self) -> str | None:
        """The key of the base that it serves; None while it does not answer."""
        with self.lock:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._looked = time.monotonic()
                before, self._serves = self._serves, self._look()
                if before != self._serves:
                    self.adapters.clear()  # another server, or the same one started again
            return self._serves

    def _look(self) -> str | None:
        try:
            with ServerClient(self.url, timeout=LOOK_SECONDS) as client:
                cards = client.models()
        except ServingError:
            return None
        there = {card.id for card in cards}
        for name in [name for name in self.adapters if name not in there]:
            del self.adapters[name]
        for card in cards:
            folder = Path(card.root or "").resolve()
            if card.parent is None and folder.parent == (self.home / "prepared").resolve():
                return folder.name
        return None
