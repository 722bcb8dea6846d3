"""Which model servers are answering just now, by their addresses, as far as this process asks them.

A server that is in the middle of an answer must not be ended to make room for another one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_asking: Counter[str] = Counter()
_answered: dict[str, float] = {}


@contextmanager
def asking(url: str) -> Iterator[None]:
    """While a question waits for its answer."""
    with _lock:
        _asking[url] += 1
    try:
        yield
        with _lock:
            _answered[url] = time.monotonic()
    finally:
        with _lock:
            _asking[url] -= 1


def is_asked(url: str) -> bool:
    """Whether a question waits for its answer."""
    return _asking[url] > 0


def last_answer(url: str) -> float:
    """When the last answer came, by `time.monotonic`; minus infinity for none."""
    return _answered.get(url, float("-inf"))
