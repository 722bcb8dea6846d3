"""Names in tables that spreadsheets open: nothing in them is calculated, and they come back as they were.

A spreadsheet calculates a cell that begins with = + - or @, also full-width ones, and also behind spaces and what can't
be seen. It may split a cell at another separator than the one it was written with, so the pieces are looked at too. An
apostrophe in front keeps each of them text; reading a table takes it away again.
"""

from __future__ import annotations

import re

# = + - @, their full-width, small, raised and lowered forms, and the minus sign.
_LIVE = r"=+\-@\u207a-\u207c\u208a-\u208c\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20\ufb29"
# What a spreadsheet may leave out before it looks: spaces, controls, invisible characters, quotation marks.
_SKIPPED = (
    r" \x00-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\"“”„«»‘’`'"
    r"\U000e0000-\U000e0fff"
)
# A tab or a line break at the very beginning is kept from spreadsheets too: they differ in what they do with it.
_AT_START = rf"[{_SKIPPED}]*(?:[{_LIVE}]|[\x00-\x1f])|[{_SKIPPED}\t\r\n]*[{_LIVE}]"
_IN_A_PIECE = rf"[{_SKIPPED}]*[{_LIVE}]"
_GUARDED = re.compile(rf"\A(?={_AT_START})|(?<=[,;|\t\r\n])(?={_IN_A_PIECE})")
_GUARD = re.compile(rf"\A'(?={_AT_START})|(?<=[,;|\t\r\n])'(?={_IN_A_PIECE})")


def guard(text: str) -> str:
    """The text with an apostrophe before each piece that a spreadsheet would calculate."""
    return _GUARDED.sub("'", text)


def unguard(text: str) -> str:
    """The text that `guard` was given."""
    return _GUARD.sub("", text)
