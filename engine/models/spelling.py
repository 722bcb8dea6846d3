"""What a tokenizer makes of texts, and what it writes of the tokens afterwards; for telling what a model can say.

    speller = file_speller(Path("tokenizer.json"), ("[X]",))
    (_, ids), = speller.split([("Gene Finley [X]", "Cody Ross")])
    speller.texts([ids])                                             # ['Cody Ross'], or what the tokenizer writes

The same questions to a tokenizer on its own (the page must not load transformers) and to that of a loaded model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from engine.models.around import NOTHING, PROBE, Around

Ids = tuple[int, ...]
# What transformers' `clean_up_tokenization` replaces in an answer, for tokenizers that ask for it.
_CLEANED = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
            (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Speller:
    """split: (prompt, answer) → the ids of `prompt + " " + answer`, cut where the answer begins, as training and
    evaluation cut them. texts: the text of an answer's ids, as answers are read. unknown: ids that stand for what the
    tokenizer does not know; special: ids with a meaning of their own, such as the end of a text. context: the most
    tokens that the model reads, None where that is not known; extra: so many of them stand around a question, and are
    no part of what `split` gives."""

    split: Callable[[Sequence[tuple[str, str]]], Sequence[tuple[Sequence[int], Sequence[int]]]]
    texts: Callable[[Sequence[Ids]], list[str]]
    unknown: frozenset[int]
    special: frozenset[int]
    context: int | None = None
    extra: int = 0


def file_speller(file: Path, key_tokens: Sequence[str] = (), around: Around = NOTHING) -> Speller:
    """The speller of a tokenizer.json with the settings beside it, to which key tokens are added as a run adds them.

    A second call for unchanged files is free. Raises ValueError when the file cannot be read.
    """
    try:
        return _file_speller(file, file.stat().st_mtime_ns, tuple(key_tokens), around)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=4)
def _file_speller(file: Path, changed: int, key_tokens: tuple[str, ...], around: Around) -> Speller:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{file} cannot be read as a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    settings = read_json(file.with_name("tokenizer_config.json"))
    named = [*_special_texts(settings), *_special_texts(read_json(file.with_name("special_tokens_map.json")))]
    tokenizer.add_special_tokens([text for text in named if tokenizer.token_to_id(text) is not None])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False, lstrip=True) for t in key_tokens])
    cleans = bool(settings.get("clean_up_tokenization_spaces")) and type(tokenizer.model).__name__ != "BPE"

    def split(pairs: Sequence[tuple[str, str]]) -> list[tuple[Sequence[int], Sequence[int]]]:
        encoded = tokenizer.encode_batch([around.whole(*pair) for pair in pairs], add_special_tokens=False)
        found: list[tuple[Sequence[int], Sequence[int]]] = []
        for (prompt, _), encoding in zip(pairs, encoded, strict=True):
            whole = (prompt, encoding.ids, encoding.offsets)
            found.append((around.own(*whole), around.cut(*whole)[1]))
        return found

    def texts(answers: Sequence[Ids]) -> list[str]:
        decoded = tokenizer.decode_batch([list(ids) for ids in answers], skip_special_tokens=False)
        return [(_clean(text) if cleans else text).strip() for text in decoded]

    config = read_json(file.with_name("config.json"))
    unknown = unknown_ids(tokenizer)
    special = special_ids(tokenizer) - unknown | _ends_beside(file)
    asked = tokenizer.encode(around.asks(PROBE), add_special_tokens=False)
    extra = len(around.begun(asked.ids)) - len(around.own(PROBE, asked.ids, asked.offsets))
    return Speller(split, texts, unknown, special, context_of(config), extra)


def unknown_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that the tokenizer itself gives for what it does not know; none where bytes or letters always do."""
    model = json.loads(tokenizer.to_str())["model"]
    found = {model.get("unk_id"), tokenizer.token_to_id(model.get("unk_token") or "")}
    return frozenset(found - {None})


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of special tokens, which a text can spell and no text means. Bytes, by which some tokenizers write signs
    that they have no token for, are none."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(i for i, token in added.items() if token.special and not _BYTE.fullmatch(token.content))


def context_of(config: dict[str, Any]) -> int | None:
    """The most tokens that a model of this configuration reads, if it says so."""
    text = config.get("text_config")
    places = (text if isinstance(text, dict) else {}, config)
    names = ("max_position_embeddings", "n_positions")
    return next((v for c in places for n in names if isinstance(v := c.get(n), int) and v > 0), None)


def read_json(file: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is no such file, or nothing in it that can be read."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _ends_beside(file: Path) -> frozenset[int]:
    """The ids that end an answer by the model's configuration or its generation settings."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        ids = read_json(file.with_name(name)).get("eos_token_id")
        found |= {i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int)}
    return frozenset(found)


def _special_texts(settings: dict[str, Any]) -> Iterator[str]:
    """The texts that a tokenizer's settings name as special tokens."""
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        if name.endswith(("_token", "special_tokens")):
            texts = (v.get("content") if isinstance(v, dict) else v for v in values)
            yield from (text for text in texts if isinstance(text, str) and text)
    added = settings.get("added_tokens_decoder")
    for token in added.values() if isinstance(added, dict) else ():
        if isinstance(token, dict) and token.get("special") and isinstance(token.get("content"), str):
            yield token["content"]


def _clean(text: str) -> str:
    for spaced, plain in _CLEANED:
        text = text.replace(spaced, plain)
    return text
