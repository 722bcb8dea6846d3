"""Answers before ranks: who waits for a server's answers goes before those who walk its trees of options.

The ranks of one fact are thousands of small questions. vLLM takes questions as they come, so the answers of another
model, asked a moment later, would stand behind them all.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 10.0  # seconds that ranks wait for answers of others: a server that is always asked must rank too
_waiting: Counter[str] = Counter()
_changed = threading.Condition()


@contextmanager
def answering(address: str) -> Iterator[None]:
    """While answers of the server at `address` are waited for, in this process."""
    with _changed:
        _waiting[address] += 1
    try:
        yield
    finally:
        with _changed:
            _waiting[address] -= 1
            _changed.notify_all()


def after_answers(address: str) -> None:
    """Return when nobody waits for answers of that server, or after `PATIENCE`."""
    with _changed:
        _changed.wait_for(lambda: not _waiting[address], PATIENCE)
