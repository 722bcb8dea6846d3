"""Where an answer may end because its hit is decided: nothing that could follow takes the object away again.

decided = Decided(objects, texts_of)        # objects: which texts each object's tokens stand for
decided.of([object_ids], [answer_ids])      # [True] once the object stands in the answer, with a sign behind it
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

from engine.evaluation.hits import is_hit

Ids = tuple[int, ...]
# Stands behind an answer that was ended.
ENDED = " …"
# What a tokenizer writes for a sign of which it has only some bytes so far.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Decided:
    """objects: by an object's ids, the texts they stand for with the tokenizer's spelling of each; texts_of: answers'
    texts by their ids, as they are judged in the end; bytes_: ids that stand for single bytes, of which a later one may
    spoil those before it."""

    def __init__(
        self,
        objects: Mapping[Ids, Sequence[tuple[str, str]]],
        texts_of: Callable[[list[Ids]], list[str]],
        bytes_: frozenset[int] = frozenset(),
    ) -> None:
        self.objects, self.texts_of, self.bytes = objects, texts_of, bytes_

    def of(self, objects: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each answer is a hit whatever follows; `objects`: the ids of the object that it is asked for."""
        texts = self.texts_of([tuple(ids) for ids in answers])
        return [
            answer[-1] not in self.bytes and all(is_decided(text, *wanted) for wanted in self.objects[tuple(ids)])
            for text, ids, answer in zip(texts, objects, answers, strict=True)
        ]

    def end(self, object_ids: Sequence[int], answer: Sequence[int]) -> int | None:
        """After how many tokens the answer's hit is decided first; None where it never is."""
        lengths = range(1, len(answer) + 1)
        return next((n for n in lengths if self.of([object_ids], [answer[:n]])[0]), None)


def is_decided(text: str, object_text: str, spelling: str) -> bool:
    """Whether the object stands in the text with a sign behind it that what follows cannot melt into it.

    An accent that follows may make another letter of the object's last one, as may the rest of a sign's bytes.
    """
    text = unicodedata.normalize("NFC", text)
    if not text or text[-1] == UNFINISHED or unicodedata.combining(text[-1]):
        return False
    return is_hit(text, object_text, spelling) and is_hit(text[:-1], object_text, spelling)
