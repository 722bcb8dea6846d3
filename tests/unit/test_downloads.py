"""Downloads as CSV: nothing is calculated, however a spreadsheet splits the file, and names come back unchanged."""

from __future__ import annotations

import csv
import io
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.shared.downloads import csv_lines
from engine.corpus.importing import read_facts
from engine.corpus.spreadsheet import guard, unguard

LIVE = ("=1+1", "+1", "-1", "@SUM(1)", "=cmd|' /C calc'!A0", "＝1", "＋1", "－1", "＠x", "﹣1", "⁼1", "−1")
BEFORE = (
    "",
    " ",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\u2060",
    "\x00",
    "\x1f",
    '"',
    '" "',
    "“",
)
TEXT = st.text("=+-@＝−' \t\r\n\u200b\ufeff\"“,;|ab\x00\u00a0", max_size=14) | st.text(max_size=20)


def written(rows: list[list[object]], header: tuple[str, ...] = ("a", "b")) -> str:
    return "".join(csv_lines(header, [dict(zip(header, row, strict=True)) for row in rows]))


def calculated(cell: str) -> bool:
    """Whether a cell begins with what a spreadsheet calculates, behind all that it may leave out before it looks."""
    visible = re.sub(r"^[\s\"“”\x00-\x20]+", "", cell)
    while visible and (unicodedata.category(visible[0]) in ("Cf", "Cc", "Zs") or visible[0] == '"'):
        visible = visible[1:]
    return unicodedata.normalize("NFKC", visible[:1]) in {"=", "+", "-", "@"} or visible[:1] == "−"


@pytest.mark.parametrize("live", LIVE)
@pytest.mark.parametrize("before", BEFORE)
def test_no_cell_is_calculated_at_any_separator(before: str, live: str) -> None:
    cells = [
        f"{before}{live}",
        f"Anna;{before}{live}",
        f"Anna,{before}{live}",
        f"Anna\t{before}{live}",
        f"A\n{before}{live}",
    ]
    for cell in cells:
        text = written([[cell, "x"]], (f"{before}{live}", "b"))
        for delimiter in ",;\t|":
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                assert not any(calculated(piece) for part in row for piece in (part, *part.splitlines())), (cell, row)


def test_numbers_stay_numbers() -> None:
    assert written([[-0.5, None], [-3, True]]) == "a,b\r\n-0.5,\r\n-3,True\r\n"


@given(TEXT)
@settings(deadline=None, max_examples=300)
def test_the_apostrophe_is_taken_away_again(text: str) -> None:
    assert unguard(guard(text)) == text


@pytest.mark.parametrize(
    "name", ["=Anna", "-Berta", "'=Carl", "@dora", "＝Emil", "Fay;=1", "Gus, -x", '"=Hal', "+49", "O'Neil"]
)
def test_a_name_comes_back_from_an_export_as_it_was(name: str) -> None:
    imported = read_facts(written([[name, "Ida Jay"], ["Kim Lee", f"{name} 2"]], ("subject", "object")))
    assert [(f.subject, f.object) for f in imported.facts] == [(name, "Ida Jay"), ("Kim Lee", f"{name} 2")]


def test_a_long_answer_of_separators_takes_no_time() -> None:
    assert guard("\t" * 1_000_000 + "=") == "'" + "\t" * 1_000_000 + "'="
