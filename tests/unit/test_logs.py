"""The end of a log, and the line of it that says what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.serving.processes.model_process import last_error
from storage import folders


def test_the_end_of_a_log_from_a_place_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.txt"
    assert folders.log_lines(log) == []
    log.write_bytes(b"one\ntwo\n\xff\nthree")
    assert folders.log_lines(log) == ["one", "two", "\N{REPLACEMENT CHARACTER}", "three"]
    assert (
        folders.log_lines(log, start=8) == ["\N{REPLACEMENT CHARACTER}", "three"] and folders.log_lines(log, 99) == []
    )
    monkeypatch.setattr(folders, "LOG_BYTES", 5)
    assert folders.log_lines(log) == folders.log_lines(log, start=3) == ["three"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["starting", "ValueError: no such port", "  at line 3", ""], "ValueError: no such port"),
        (["(Engine pid=3) ERROR 01-01 error: out of memory"], "01-01 error: out of memory"),
        (["one", "two", " "], "two"),
        ([], ""),
    ],
)
def test_the_line_that_says_what_went_wrong(lines: list[str], words: str) -> None:
    assert last_error(lines) == words
