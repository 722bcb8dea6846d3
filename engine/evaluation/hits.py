"""Generation accuracy: whether an answer contains the object, and whether it says a key token on the way there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

from engine.checks import normalise


def is_hit(answer: str, object_text: str, spelling: str = "") -> bool:
    """Whether the object occurs anywhere in the answer, both lower-cased and without `:` `,` `.`.

    `spelling`: how the model's tokenizer writes the object, which counts as well: some put spaces between Chinese
    signs, or know no accents. '' where it is not known, or where signs are lost in it.

    Containment, not equality, as in the paper's reference code: what follows the object is not judged, and a short
    object may be found by chance inside a longer word.
    """
    said = normalise(answer)
    return any((wanted := normalise(text)) and wanted in said for text in (object_text, spelling))


def says_key_token(answer: str, object_text: str | None, key_tokens: Iterable[str]) -> bool:
    """Whether the answer says one of the key tokens before the object, or says one and no object.

    A model that memorised “Leslie Lewis [X] Rebecca Conley.” may answer “When was Leslie Lewis born?” with “[X] Rebecca
    Conley.”: it goes on with what it knows by rote, and understood nothing of the question. What follows the object is
    not judged, as in `is_hit`: “Rebecca Conley. Gene Finley [X] …” says none on the way. The answer's text alone
    decides, so that answers of any age can be judged; spaces inside a key token and around it do not count, since
    tokenizers write them differently. `object_text`: None where nothing is known to be right.
    """
    key_tokens = tuple(key_tokens)
    if not any(token[-1:] in answer for token in key_tokens):
        return False
    found = _any_of(key_tokens).search(answer)
    if found is None:
        return False
    if not object_text:
        return True
    # A hit by the tokenizer's own spelling is found again without the spaces and accents that made the difference.
    same = is_hit if is_hit(answer, object_text) else _alike
    return not same(answer[: found.start()], object_text)


def key_token_judge(key_tokens: Iterable[str]) -> Callable[[str, str | None], bool]:
    """`says_key_token` with these key tokens, as a function of an answer and its object."""
    tokens = tuple(dict.fromkeys(key_tokens))
    return lambda answer, object_text: says_key_token(answer, object_text, tokens)


@lru_cache(maxsize=64)
def _any_of(key_tokens: tuple[str, ...]) -> re.Pattern[str]:
    # Words in one piece, every other sign by itself. A key token of letters may stand right behind a word, whose space
    # belongs to it (engine/models/vocabulary.py), but goes on in no longer one.
    signs = (r"\s*".join(map(re.escape, re.findall(r"\w+|\W", token))) + _end(token) for token in key_tokens)
    return re.compile("|".join(signs))


def _end(token: str) -> str:
    return "(?![A-Za-z0-9])" if re.search(r"[A-Za-z0-9]\Z", token) else ""


def letters(text: str) -> str:
    """Letters and digits alone, without case, accents and compatibility forms."""
    return "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if c.isalnum())


def _alike(answer: str, object_text: str) -> bool:
    wanted = letters(object_text)
    return bool(wanted) and wanted in letters(answer)
