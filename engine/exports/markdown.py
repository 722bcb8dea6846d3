"""Text of any kind inside a Markdown file: what somebody typed stays text."""

from __future__ import annotations

import re
from html import escape

_SIGNS = re.compile(r"([\\`*_{}\[\]#|~])")
# What makes an item of a list, or a line across, of a text that begins with it.
_BEGINNING = re.compile(r"^(\d*)([-+]|(?<=\d)[.)])")


def plain(text: str) -> str:
    """The text on one line, with nothing in it that Markdown or HTML would read as a sign of its own."""
    escaped = _SIGNS.sub(r"\\\1", escape(" ".join(text.split()), quote=False))
    return _BEGINNING.sub(r"\1\\\2", escaped)
