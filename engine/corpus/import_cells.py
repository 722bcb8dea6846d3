"""The cells of an imported table: cleaning names, and reading and thinning lists of alternatives.

A list is read as it was meant, or refused in words. It is never joined into one name: that would be an answer which
nobody gives, and a choice among fewer answers than the table brings.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from functools import lru_cache

from engine.checks import clean, normalise

MAX_LIST_CHARACTERS = 100_000
CLEAR = "write ['first', 'second'] or first | second"
NOTHING = {"", "nan", "none", "null", "<na>", "n/a", "#n/a", "nat", "[]", "()", "{}", "set()"}
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
# array(['A', 'B'], dtype=object), set([…]), Index([…], dtype='object'), as numpy, Python 2 and pandas print lists.
_CALL = re.compile(
    r"(?:np\.|numpy\.|pd\.|pandas\.)?(?:array|list|tuple|set|frozenset|Index|Series)\((?P<list>.*)\)", re.DOTALL
)
_KIND = re.compile(r",\s*(?:dtype|name|length)\s*=")
_NAME = r"""[uU]?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
# A name, or the rest of the text from a quotation mark without its pair: to look on from each sign in it takes long.
_NAME_OR_REST = re.compile(r"""(?P<name>[uU]?(?:"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'))|["'].*""", re.DOTALL)
_ITEM = re.compile(
    rf"\s*(?:(?:np\.|numpy\.)?str_\(\s*(?P<wrapped>{_NAME})\s*\)|(?P<name>{_NAME})|(?P<none>nan|None|null|NaN|<NA>))"
    r"(?P<between>\s*[,;|]?\s*)",
    re.DOTALL,
)


def parse_alternatives(cell: str, least_words: int | None = 1) -> tuple[tuple[str, ...], str | None]:
    """The names in a cell, and what is wrong with it in words, or None.

    A cell is a list as Python, numpy, pandas or JSON write it, or names with `|`, `;`, line breaks or commas between
    them. A comma may also be part of a name: `least_words` is how many words names of the table have (then
    ‘Smith, Anna’ is not taken for two names of one word); None says that its names have commas themselves.
    """
    text = cell.strip()
    if text.casefold() in NOTHING:
        return (), None
    if len(text) > MAX_LIST_CHARACTERS:
        return (), f"the list is longer than {MAX_LIST_CHARACTERS:,} characters and was not read: shorten it"
    inside = text
    if call := _CALL.fullmatch(text):
        inside = _without_kind(call["list"]).strip()
    closing = _BRACKETS.get(inside[:1])
    if closing and (call or inside[0] == "[" or re.match(rf"[({{]\s*(?:{_NAME}|[\[({{])", inside)):
        return _bracketed(inside, closing)
    if call:
        return (), f"is not a list of names and was not read: {CLEAR}"
    if inside[0] == '"' or (inside[0] == "'" and inside[-1] == "'"):
        names = _quoted(inside)
        if names is not None:
            return names, None
    return _plain(text, least_words)


def _without_kind(text: str) -> str:
    """What stands in a call's brackets, without a `, dtype=object` at its end.

    It is looked for behind all other brackets alone: to look from every comma to the end takes minutes for a long cell.
    """
    kind = _KIND.search(text, max(map(text.rfind, "[](){}")) + 1)
    return text[: kind.start()] if kind else text


def _bracketed(text: str, closing: str) -> tuple[tuple[str, ...], str | None]:
    if re.search(r"\.\.\.|…", text) and re.search(r"\.\.\.|…", _but_names(text)):
        message = "the list was cut short with ‘...’ when it was saved, and was not read: save it whole"
        return (), message
    inside = text[1:-1].strip() if text.endswith(closing) else None
    if inside == "":
        return (), None
    names = _quoted(inside) if inside is not None else None
    if names is None:
        one_kind = _but_names(text)
        if any(c in one_kind[1:-1] for c in "[({:") or re.search(r"\d", one_kind):
            return (), f"holds more than names and was not read: {CLEAR}"
        return (), f"is not a list of names and was not read: {CLEAR}"
    return names, None


def _but_names(text: str) -> str:
    """The text without the names in quotation marks."""
    return _NAME_OR_REST.sub(lambda found: "" if found["name"] else found[0], text)


def _quoted(text: str) -> tuple[str, ...] | None:
    """Names in quotation marks with one and the same sign between all of them, or only space; None for others.

    Python joins neighbouring strings, so `'A' 'B'` with commas elsewhere in the list may be a forgotten comma.
    """
    names: list[str] = []
    between: set[str] = set()
    at = 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            return None
        at = item.end()
        if at < len(text):
            if not item["between"]:
                return None
            between.add(item["between"].strip())
        written = item["wrapped"] or item["name"]
        if written:
            name = _unquoted(written)
            if name is None:
                return None
            names.append(name)
    # In quotation marks ‘None’ is a name; ‘nan’ is what pandas makes of an empty cell when it turns cells into text.
    kept = tuple(name for written in names if (name := clean(written)) not in ("", "nan"))
    return kept if len(between) <= 1 else None


def _unquoted(written: str) -> str | None:
    if "\\" not in written:
        return written.lstrip("uU")[1:-1]
    for read in (json.loads, ast.literal_eval):
        try:
            return str(read(written))
        except (ValueError, SyntaxError):
            continue
    return None


def _plain(text: str, least_words: int | None) -> tuple[tuple[str, ...], str | None]:
    if re.search(r"""[\[({]\s*['"]|dtype""", text):
        return (), f"is not a list of names and was not read: {CLEAR}"
    signs = [sign for sign in "|;" if sign in text]
    if len(signs) == 2:
        return (), f"has both ‘|’ and ‘;’ between names and was not read: {CLEAR}"
    lines = [line for line in re.split(r"[\t\r\n]+", text) if line.strip()]
    if signs:
        parts = text.split(signs[0])
    elif len(lines) > 1:
        parts = [line.strip().removesuffix(",").removeprefix("- ") for line in lines]
    elif re.search(r"[,、，؛；]", text):
        parts = re.split(r"[,、，؛；]", text)
        if least_words is None or any(len(part.split()) < least_words for part in parts):
            message = "may be one name with a comma in it or several, and was not read: put | between names"
            return (), message
    elif re.search(r"\s/\s|[•‖¦]", text):
        return (), "may be one name or several, and was not read: put | between names"
    else:
        parts = [text]
    unpaired = any(part.count('"') % 2 or part.count("[") != part.count("]") for part in parts)
    if unpaired:
        return (), f"has a quotation mark or bracket without its pair and was not read: {CLEAR}"
    return _names(part if len(parts) == 1 else _bare(part) for part in parts), None


def _bare(part: str) -> str:
    """One of several names without the quotation marks that surround it."""
    part = part.strip()
    return part[1:-1] if len(part) > 2 and part[0] == part[-1] == '"' and '"' not in part[1:-1] else part


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for value in values if (name := clean(value)).casefold() not in NOTHING)


def keep_distinct(truth: str, alternatives: Iterable[str]) -> tuple[str, ...]:
    """The alternatives without those that contain, or are contained in, the truth or an earlier alternative.

    Source: the paper replaces such alternatives; an imported table has nothing to put in their place.
    """
    alternatives = tuple(alternatives)
    options = [_normal(name) for name in (truth, *alternatives)]
    joined = "\n".join(options)
    if all(joined.count(option) == 1 for option in options):
        return alternatives
    kept_options, kept = [options[0]] if options[0] else [], []
    for name, option in zip(alternatives, options[1:], strict=True):
        if option and not any(option in other or other in option for other in kept_options):
            kept_options.append(option)
            kept.append(name)
    return tuple(kept)


@lru_cache(maxsize=100_000)
def _normal(name: str) -> str:
    return normalise(name)
