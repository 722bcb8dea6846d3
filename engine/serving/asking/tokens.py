"""A run's own tokenizer without torch or transformers: the very tokens that training and evaluation used.

tokens = Tokens.load(served.tokenizer)
prompt, object_ = tokens.split("Gene Finley [X]", "Cody Ross")
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from engine.checks import shorten
from engine.models.around import NOTHING, Around, around_beside
from engine.models.spelling import unknown_ids

Ids = tuple[int, ...]
# Sets of options whose tokens are remembered; a run has one for each relation, or one for each fact.
KEPT_OPTIONS = 256


class Tokens:
    """Text to token ids and back, with what stands around a text in training, and nothing else."""

    def __init__(self, tokenizer: Tokenizer, around: Around = NOTHING) -> None:
        self._around = around
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._unknown = unknown_ids(tokenizer)
        self._cuts_at_spaces = _cuts_at_spaces(tokenizer)
        self._options: dict[tuple[str, ...], tuple[Ids, ...]] = {}

    @classmethod
    def load(cls, path: Path) -> Tokens:
        """The tokenizer in a tokenizer.json, read again only when the file changes. Raises ValueError."""
        try:
            stat = path.stat()
            return _load(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise ValueError(f"{path} is missing: the checkpoint was deleted, or its run is not far enough") from error

    def ids(self, text: str) -> Ids:
        """The ids that ask a text. Raises ValueError for what is no text.

        The same as `engine.models.tokenise.tokenise_prompts`.
        """
        _check_text(text)
        return tuple(self._around.begun(self._tokenizer.encode(self._around.asks(text), add_special_tokens=False).ids))

    def split(self, prompt: str, answer: str) -> tuple[Ids, Ids]:
        """`split_all` for one."""
        return self.split_all([(prompt, answer)])[0]

    def split_all(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
        """For each (prompt, answer): the ids of `prompt + " " + answer` with what stands around, split where the answer
        begins.

        The same as `engine.models.tokenise.tokenise_questions`. Raises ValueError for what is no text.
        """
        texts = [self._around.whole(prompt, answer) for prompt, answer in pairs]
        for text in texts:
            _check_text(text)
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        split = []
        for (prompt, _), encoding in zip(pairs, encoded, strict=True):
            asked, answered = self._around.cut(prompt, encoding.ids, encoding.offsets)
            split.append((tuple(asked), tuple(answered)))
        return split

    def options(self, options: tuple[str, ...]) -> tuple[Ids, ...] | None:
        """The ids of each option behind a prompt and a space, whatever the prompt.

        None for a tokenizer that may merge the end of a prompt with what follows: there each prompt needs `split_all`.
        """
        if not self._cuts_at_spaces:
            return None
        if options not in self._options:
            if len(self._options) >= KEPT_OPTIONS:
                self._options.clear()
            self._options[options] = tuple(ids for _, ids in self.split_all([("", option) for option in options]))
        return self._options[options]

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer, without the space before its first word; special tokens stay visible."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False).strip()

    def spelling(self, ids: Ids) -> str:
        """How the tokenizer writes an object of these ids; '' where some of them stand for what it does not know."""
        return "" if self._unknown.intersection(ids) else self.text(ids)

    def token_texts(self, prompt: Sequence[int], ids: Sequence[int]) -> list[str]:
        """The text that each token of an answer adds, spaces included; together they are the answer as it stands.

        A token that holds a part of a character adds nothing until the character is whole.
        """
        before = list(prompt[-4:])
        shown = self._tokenizer.decode(before, skip_special_tokens=False)
        texts = []
        for place in range(len(ids)):
            whole = self._tokenizer.decode([*before, *ids[: place + 1]], skip_special_tokens=False)
            if not whole.startswith(shown) or (whole.endswith("\N{REPLACEMENT CHARACTER}") and place < len(ids) - 1):
                texts.append("")
                continue
            texts.append(whole[len(shown) :])
            shown = whole
        return texts


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"‘{shorten(text)}’ holds half of a surrogate pair, which is no character: remove it")


def _cuts_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer cuts a text before each space that a word follows, before it merges anything."""
    before, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    if before is None or (normalizer is not None and " " not in normalizer.normalize_str("a b")):
        return False
    pieces = [span for _, span in before.pre_tokenize_str("Who is Ana? Cody 1938 東京 Ross")]
    return {11, 16, 21, 24} <= {start for start, _ in pieces}


@lru_cache(maxsize=64)
def _load(path: Path, size: int, modified: int) -> Tokens:
    try:
        return Tokens(Tokenizer.from_file(str(path)), around_beside(path))
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a tokenizer: train the run again") from error
