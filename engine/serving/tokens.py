"""A run's own tokenizer without torch or transformers: the very tokens that training and evaluation used.

tokens = Tokens.load(served.tokenizer)
prompt, object_ = tokens.split("Gene Finley [X]", "Cody Ross")
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

Ids = tuple[int, ...]


class Tokens:
    """Text to token ids and back. Nothing is added to a text: no special tokens, as in training."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> Tokens:
        """The tokenizer in a tokenizer.json, read again only when the file changes. Raises ValueError."""
        try:
            stat = path.stat()
            return _load(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise ValueError(f"{path} is missing: the checkpoint was deleted, or its run is not far enough") from error

    def ids(self, text: str) -> Ids:
        """The ids of a text."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def split(self, prompt: str, answer: str) -> tuple[Ids, Ids]:
        """`split_all` for one."""
        return self.split_all([(prompt, answer)])[0]

    def split_all(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
        """For each (prompt, answer): the ids of `prompt + " " + answer`, split where the answer begins.

        The same as `engine.training.sequences.tokenise_questions`.
        """
        encoded = self._tokenizer.encode_batch([f"{p} {a}" for p, a in pairs], add_special_tokens=False)
        split = []
        for (prompt, _), found in zip(pairs, encoded, strict=True):
            edge = next((i for i, (_, end) in enumerate(found.offsets) if end > len(prompt)), len(found.ids))
            split.append((tuple(found.ids[:edge]), tuple(found.ids[edge:])))
        return split

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer, without the space before its first word; special tokens stay visible."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False).strip()

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


@lru_cache(maxsize=64)
def _load(path: Path, size: int, modified: int) -> Tokens:
    try:
        return Tokens(Tokenizer.from_file(str(path)))
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a tokenizer: train the run again") from error
