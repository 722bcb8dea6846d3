"""Answers go before ranks on the same server."""

from __future__ import annotations

import threading
import time

import pytest

from engine.serving.asking import turns


def test_ranks_wait_until_nobody_waits_for_answers() -> None:
    went = threading.Event()

    def rank() -> None:
        turns.after_answers("http://one")
        went.set()

    with turns.answering("http://one"):
        with turns.answering("http://one"):
            waiting = threading.Thread(target=rank)
            waiting.start()
        assert not went.wait(0.2)
    assert went.wait(5)
    waiting.join()


def test_other_servers_and_failed_answers_hold_nobody_up() -> None:
    with turns.answering("http://one"):
        turns.after_answers("http://two")
    with pytest.raises(ValueError), turns.answering("http://one"):
        raise ValueError
    turns.after_answers("http://one")


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = turns.PATIENCE
    monkeypatch.setattr(turns, "PATIENCE", 0.2)
    with turns.answering("http://one"):
        began = time.monotonic()
        turns.after_answers("http://one")
        assert 0.2 <= time.monotonic() - began < usual / 2
