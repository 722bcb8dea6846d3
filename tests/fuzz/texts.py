"""What a person may type, at its worst: strategies that the fuzzing targets share."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def cleaned(text: str) -> str:
    """How a name is kept: composed accents, single spaces, none around it. Not by the lab's own function."""
    return " ".join(unicodedata.normalize("NFC", text).split())


HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "=HYPERLINK(1)", "＝1+1", "\t=1", "@SUM(A1)", "-2+3",
    "{subject}", "{key}", "{object}", "${x}", "{{x}}", "{% x %}", "\u202egnal", "a\u200bb", "\ufeffx", "\x85", "\u2028",
    "李 小龙", "שלום עולם", "مرحبا", "🧪👩‍👩‍👧", "O'Neil \"Red\"", "a\tb", "a\nb", "\0", "\ud800", "a\udfffb",
    "../../etc/passwd", "file:///etc/passwd", "C:\\x", "~", "[X]", "[[X]]", "Null", "No", "yes", "0777", "1:59:59",
    "2024-01-01", "1e400", ".inf", "0x1F", "1_000", "!!python/object:x", "&a", "*a", "<<", "| #", "- a: b", "? x", "%x",
    "<|endoftext|>", "</s>", "<unk>", "[MASK]", "...", ":::", "。", " ", "\u00a0", "e\u0301", "ﬁ", "Ⅻ", "İ", "ß",
    "' OR 1=1 --", "nan", "None", "a" * 300, "字" * 220, "x " * 260, "%00", "%s%n", "\\u0041", "\"", "'", ",", ";",
)  # fmt: skip
TEXT: SearchStrategy[str] = st.one_of(
    st.text(max_size=60),
    st.sampled_from(HOSTILE),
    st.tuples(st.sampled_from(HOSTILE), st.text(max_size=12), st.sampled_from(HOSTILE)).map("".join),
)
# What most people type: words of any script with single spaces between them.
PLAIN_NAMES: SearchStrategy[str] = st.lists(
    st.text(st.characters(categories=["Ll", "Lu", "Lo", "Nd"]), min_size=4, max_size=10), min_size=2, max_size=3
).map(" ".join)


def mostly(usual: SearchStrategy[Any], seldom: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """The usual in most cases: where everything is odd, the first oddity hides the others."""
    return st.integers(0, 99).flatmap(lambda place: seldom if 40 <= place < 46 else usual)


NAMES = mostly(PLAIN_NAMES, TEXT)
NUMBERS: SearchStrategy[Any] = st.one_of(
    st.integers(-3, 300), st.integers(), st.floats(), st.sampled_from([10**400, -0.0, 1e-320, True])
)
ANYTHING: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
