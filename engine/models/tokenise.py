"""From texts to token ids, for training and for asking alike.

A text is tokenised whole and as it stands, without special tokens (as in the paper), and character offsets tell
which tokens belong to which part: no assumption about how a tokenizer joins spaces to words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from engine.corpus.sentences import Span


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[list[int], list[Span]]]:
    """The token ids of each text, and for each token the characters that it stands for."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def tokenise_questions(
    tokenizer: PreTrainedTokenizerBase, questions: Iterable[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """For each (prompt, object): the ids of `prompt + " " + object`, split where the object begins.

    The first part asks, the second is what stage 2's object mask trains on. A space before the object, and a token
    that lies over the edge, count to the object; so the first part is, but for such a token, the same for all objects.
    """
    pairs = list(questions)
    encoded = tokenise(tokenizer, [f"{prompt} {object_}" for prompt, object_ in pairs])
    split = []
    for (prompt, _), (ids, offsets) in zip(pairs, encoded, strict=True):
        edge = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        split.append((ids[:edge], ids[edge:]))
    return split
