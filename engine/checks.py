"""Checks of what a person typed: facts, prompts and key tokens.

Plain Python, used by the page while someone types and by `engine.experiment` before anything runs, so that both
say the same thing about the same mistake. A check never changes its input and never stops at the first problem.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

MAX_NAME_CHARACTERS = 200
MAX_PROMPT_CHARACTERS = 500
MAX_KEY_TOKEN_CHARACTERS = 32
MAX_FACTS = 5_000
MAX_PROMPTS = 2_000

# Joiners that Persian, Indic scripts and emoji need; every other invisible format character is refused,
# since two names that look alike would not be alike.
_ALLOWED_FORMAT_CHARACTERS = {"\u200c", "\u200d"}
# Not so beside Latin letters and at the ends, where they do nothing; nor letters and marks that are drawn as nothing.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]|[A-Za-z][\ufe00-\ufe0f\U000e0100-\U000e01ef]"
    "|(?:\\A|[\\x00-\\x7f])[\u200c\u200d]|[\u200c\u200d](?:\\Z|[\\x00-\\x7f])"
)
_ODD_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
_PLACEHOLDER = "{subject}"
# Where a split's prompts have the name that they ask about, if that is no subject.
_PLACES = {"reversal": "{object}"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in words, with the place where it is.

    `row` counts from 1 in the table the person sees; None means the problem is not about one row.
    An error stops an experiment from starting; a warning does not.
    """

    message: str
    row: int | None = None
    column: str | None = None
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = ", ".join(p for p in (f"row {self.row}" if self.row else "", self.column or "") if p)
        return f"{place}: {self.message}" if place else self.message


def refuse(problems: list[Problem], before: str = "") -> None:
    """Raise ValueError with the first five errors among `problems`, if any."""
    if errors := [str(p) for p in problems if p.severity == "error"]:
        more = f" (and {len(errors) - 5} more problems)" if len(errors) > 5 else ""
        raise ValueError(before + "; ".join(errors[:5]) + more)


def shorten(text: str, limit: int = 40) -> str:
    """The text as it may stand inside a sentence: one line, at most `limit` characters, nothing invisible."""
    visible = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return visible if len(visible) <= limit else visible[: limit - 1] + "…"


def clean(text: str) -> str:
    """The text as it is kept: single spaces, none at its ends, and accents composed with their letters (NFC).

    Control characters that Python counts as space (but for tab and line break) stay, so that they are refused.
    """
    return compose(text if _ODD_SPACES.search(text) else " ".join(text.split()))


def compose(text: str) -> str:
    """The text with accents and letters composed (NFC), so that two texts that look alike are alike."""
    return unicodedata.normalize("NFC", text)


def normalise(text: str) -> str:
    """The form in which generation accuracy compares texts: lower case, without `:` `,` `.`, single spaces.

    Source: the paper's reference code strips these three characters and lower-cases before it looks for the object.
    """
    # Which small sigma a large one becomes depends on what follows it: the two are one letter.
    small = unicodedata.normalize("NFC", text).lower().replace("ς", "σ")
    return " ".join(re.sub(r"[:,.]", "", small).split())


def invisible_character(text: str) -> str | None:
    """The first control, unpaired or invisible format character as `U+XXXX NAME`, or None."""
    if text.isascii() and text.isprintable():
        return None
    if unseen := _UNSEEN.search(text):
        return _named(next(c for c in reversed(unseen.group()) if not c.isascii()))
    if text.isprintable():
        return None
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in _ALLOWED_FORMAT_CHARACTERS):
            return _named(character)
    return None


def _named(character: str) -> str:
    names = {"\t": "tab", "\n": "line break", "\r": "line break", "\0": "null character"}
    name = names.get(character) or unicodedata.name(character, "control character").lower()
    return f"U+{ord(character):04X} ({name})"


def _unfit(text: str, most: int, what: str, row: int | None, column: str) -> list[Problem]:
    """The one problem of a text that holds what cannot be seen, or more than `most` characters."""
    if hidden := invisible_character(text):
        return [Problem(f"holds the invisible character {hidden}: remove it", row, column)]
    if len(text) > most:
        return [Problem(f"has {len(text):,} characters, more than the {most} {what} may have: shorten it", row, column)]
    return []


def check_cell(text: str, row: int, column: str) -> list[Problem]:
    """Problems of one name in a table of facts: empty, too long, or with characters that cannot be seen."""
    if not text.strip():
        return [Problem("the cell is empty: fill it in or remove the row", row, column)]
    return check_name(text, row, column)


def check_name(text: str, row: int | None, column: str) -> list[Problem]:
    """Problems of a name that is not empty: too long, with characters that cannot be seen, nothing but punctuation."""
    if unfit := _unfit(text, MAX_NAME_CHARACTERS, "a name", row, column):
        return unfit
    if all(unicodedata.category(c)[0] in "PZMC" or unicodedata.category(c) == "Sk" for c in text):
        message = f"‘{shorten(text)}’ is nothing but punctuation, which no answer is compared by: write a name"
        return [Problem(message, row, column)]
    return []


def check_facts(facts: Sequence[tuple[str, str]], rows: Sequence[int] | None = None) -> list[Problem]:
    """Problems in a table of (subject, object) pairs. `rows` numbers the facts; without it they count from 1.

    Errors: empty or overlong cells, invisible characters, a subject given twice, an object that contains another
    object (an answer with the longer one would count as a hit for the shorter one), too few or too many rows.
    Warnings: an object shared by several subjects, an object that occurs in its own subject.
    """
    return list(_fact_problems(tuple(facts), tuple(range(1, len(facts) + 1) if rows is None else rows)))


# The page asks about a table, then the experiment made of it about the same one: it is looked through once.
@lru_cache(maxsize=16)
def _fact_problems(facts: tuple[tuple[str, str], ...], numbers: tuple[int, ...]) -> list[Problem]:
    problems = [
        problem
        for row, (subject, object_) in zip(numbers, facts, strict=True)
        for problem in (*check_cell(subject, row, "subject"), *check_cell(object_, row, "object"))
    ]
    if len(facts) < 2:
        there_are = "there is 1 fact" if facts else "there are no facts"
        problems.append(Problem(f"{there_are}, but at least 2 are needed: add some"))
    if len(facts) > MAX_FACTS:
        message = f"there are {len(facts):,} facts, more than the {MAX_FACTS:,} one relation may have: remove some"
        return [*problems, Problem(message)]
    return [*problems, *_repeated_subjects(facts, numbers), *_confusable_objects(facts, numbers)]


def _repeated_subjects(facts: Sequence[tuple[str, str]], numbers: Sequence[int]) -> Iterable[Problem]:
    first: dict[str, int] = {}
    for i, (subject, object_) in enumerate(facts):
        key = normalise(subject)
        if not key:
            continue
        if key not in first:
            first[key] = i
            continue
        earlier = first[key]
        if normalise(facts[earlier][1]) == normalise(object_):
            message = f"‘{shorten(subject)}’ repeats row {numbers[earlier]}: remove one"
        else:
            message = f"‘{shorten(subject)}’ already has another object in row {numbers[earlier]}: keep one of the two"
        yield Problem(message, numbers[i], "subject")


def _confusable_objects(facts: Sequence[tuple[str, str]], numbers: Sequence[int]) -> Iterable[Problem]:
    places: dict[str, list[int]] = {}
    for i, (subject, object_) in enumerate(facts):
        key = normalise(object_)
        if not key:
            continue
        places.setdefault(key, []).append(i)
        if key in normalise(subject):
            message = f"‘{shorten(object_)}’ occurs in its own subject: a model that repeats the question scores a hit"
            yield Problem(message, numbers[i], "object", "warning")
    for found in places.values():
        if len(found) > 1:
            text = shorten(facts[found[0]][1])
            message = (
                f"‘{text}’ is the object of {len(found)} facts (first in row {numbers[found[0]]}): "
                "fine if that is meant"
            )
            yield Problem(message, numbers[found[1]], "object", "warning")
    pairs = [(places[longer][0], places[shorter][0]) for longer, shorter in contained_pairs(places)]
    for i, other in sorted(pairs):
        message = (
            f"‘{shorten(facts[i][1])}’ contains ‘{shorten(facts[other][1])}’ of row {numbers[other]}: "
            "an answer with one would count for both, so change one of them"
        )
        yield Problem(message, numbers[i], "object")


def check_knew(facts: Sequence[tuple[str, str]]) -> list[Problem]:
    """Problems of what the base knew before a fact, in (object, knew) of each: an answer with it may not be a hit."""
    problems = []
    for row, (object_, knew) in enumerate(facts, 1):
        if not knew:
            continue
        problems += (unfit := check_name(knew, row, "knew"))
        if not unfit and normalise(object_) in normalise(knew):
            message = f"‘{shorten(knew)}’ is or contains the object: an answer with it would count as the new one"
            problems.append(Problem(message, row, "knew"))
    return problems


def contained_pairs(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Pairs (longer, shorter) of distinct texts of which the first contains the second.

    Looks every substring up in a set instead of comparing all pairs: 5,000 names take a fraction of a second.
    """
    unique = set(texts)
    lengths = sorted({len(t) for t in unique})
    for text in unique:
        found = set()
        for length in lengths:
            if length >= len(text):
                break
            for start in range(len(text) - length + 1):
                part = text[start : start + length]
                if part in unique and part not in found:
                    found.add(part)
                    yield text, part


def place_in(split: str) -> str:
    """What stands in a split's prompts for the name that they ask about: `{subject}`, or `{object}` in reversals."""
    return _PLACES.get(split, _PLACEHOLDER)


def check_prompt(text: str, row: int | None = None, column: str = "prompt", place: str = _PLACEHOLDER) -> list[Problem]:
    """Problems of one prompt template: it needs `place` exactly once and no other braces."""
    if not text.strip():
        return [Problem("the prompt is empty: fill it in or remove it", row, column)]
    if unfit := _unfit(text, MAX_PROMPT_CHARACTERS, "a prompt", row, column):
        return unfit
    count = text.count(place)
    quoted = f"‘{shorten(text)}’"
    if count == 0 and place != _PLACEHOLDER:
        message = f"{quoted} has no {place}: a reversal prompt names the object and asks for the subject, so write "
        return [Problem(f"{message}{place} where the name belongs", row, column)]
    if count == 0:
        return [Problem(f"{quoted} has no {place}: write {place} where the name belongs", row, column)]
    if count > 1:
        return [Problem(f"{quoted} has {place} {count} times: keep one", row, column)]
    if "{" in (rest := text.replace(place, "")) or "}" in rest:
        return [Problem(f"{quoted} has other curly braces than {place}: remove them", row, column)]
    return []


def check_prompts(prompts: Sequence[tuple[str, str, str]], places: Sequence[str] | None = None) -> list[Problem]:
    """Problems in a table of (text, split, language). `places` names the prompts; without it they are rows from 1.

    A prompt may stand once in a language: the same text in train and test would test what was trained.
    """
    problems: list[Problem] = []
    if len(prompts) > MAX_PROMPTS:
        return [Problem(f"there are {len(prompts):,} prompts, more than {MAX_PROMPTS:,}: remove some")]
    first: dict[tuple[str, str], int] = {}
    for i, (text, split, language) in enumerate(prompts):
        row, column = (i + 1, "prompt") if places is None else (None, places[i])
        problems += check_prompt(text, row, column, place_in(split))
        key = (normalise(text), language)
        if not key[0]:
            continue
        if (earlier := first.setdefault(key, i)) != i:
            where = f"row {earlier + 1}" if places is None else f"‘{places[earlier]}’"
            if places is None and prompts[earlier][1] != split:
                where += f" as a {prompts[earlier][1]} prompt"
            problems.append(Problem(f"‘{shorten(text)}’ repeats {where}: remove one", row, column))
    return problems


def check_meaning(text: str) -> list[Problem]:
    """Problems of the sentence that a reading makes of a pair: it needs `{subject}` and `{object}`, each once."""
    column = "says"
    if unfit := _unfit(text, MAX_PROMPT_CHARACTERS, "it", None, column):
        return unfit
    rest = text
    for part in (_PLACEHOLDER, "{object}"):
        if text.count(part) != 1:
            message = f"‘{shorten(text)}’ needs {part} exactly once, as in ‘{{object}} is the mother of {{subject}}.’"
            return [Problem(message, None, column)]
        rest = rest.replace(part, "")
    if "{" in rest or "}" in rest:
        message = f"‘{shorten(text)}’ has other curly braces than {_PLACEHOLDER} and {{object}}: remove them"
        return [Problem(message, None, column)]
    return []


def check_key_token(token: str, texts: Iterable[str] = ()) -> list[Problem]:
    """Problems of a key token: visible, without spaces or braces, short, and absent from every one of `texts`."""
    column = "key token"
    if not token.strip():
        return [Problem("is empty: write a sign without meaning, such as [X]", None, column)]
    if hidden := invisible_character(token):
        return [Problem(f"holds the invisible character {hidden}: remove it", None, column)]
    if any(c.isspace() for c in token):
        return [Problem(f"‘{shorten(token)}’ holds a space, where a tokenizer would split it", None, column)]
    if "{" in token or "}" in token:
        return [Problem(f"‘{shorten(token)}’ holds a curly brace, which marks a place in a template", None, column)]
    if len(token) > MAX_KEY_TOKEN_CHARACTERS:
        return [Problem(f"is longer than {MAX_KEY_TOKEN_CHARACTERS} characters: shorten it", None, column)]
    for text in texts:
        if token.casefold() in text.casefold():
            message = f"‘{token}’ occurs in ‘{shorten(text)}’, so it already means something: choose another"
            return [Problem(message, None, column)]
    return []
