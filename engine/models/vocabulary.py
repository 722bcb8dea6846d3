"""A tokenizer's vocabulary: which signs mean something already, how one is added with an id of its own. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer

# The space before a key token is part of it, as the space before a word is part of that word's token in nearly every
# tokenizer. Otherwise the subject would be followed by a lone space token, which the model has never seen there.
SPACE_BEFORE_IS_PART = True


def last_id(tokenizer: Tokenizer) -> int:
    """The largest id of any token, -1 for an empty vocabulary."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def has_meaning(tokenizer: Tokenizer, token: str) -> bool:
    """Whether a sign is a single token of the vocabulary already, with or without a space before it."""
    if any(tokenizer.token_to_id(prefix + token) is not None for prefix in ("", "Ġ", "▁")):
        return True
    unknown = getattr(tokenizer.model, "unk_token", None)
    unknown_id = tokenizer.token_to_id(unknown) if unknown else None
    spellings = [tokenizer.encode(text, add_special_tokens=False).ids for text in (token, f" {token}")]
    return any(len(ids) == 1 and ids[0] != unknown_id for ids in spellings)


def key_token(token: str) -> AddedToken:
    """A sign as it is added: kept whole wherever it stands."""
    return AddedToken(token, normalized=False, special=False, lstrip=SPACE_BEFORE_IS_PART, rstrip=False)


def make_room(tokenizer: Tokenizer, tokens: Sequence[str]) -> None:
    """Have `tokens`, when they are added next, get ids behind the largest, where they would take those of others.

    The library counts the tokens for a new one's id. In a vocabulary with holes that id is another token's. There they
    are put into the model's own vocabulary first, where an added token finds its id. Raises ValueError for a kind of
    vocabulary in which that cannot be done.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    free = max(vocabulary.values(), default=-1) + 1
    if len(vocabulary) == free and tokenizer.get_vocab_size(with_added_tokens=True) == free:
        return
    document = json.loads(tokenizer.to_str())
    own = document["model"].get("vocab")
    if not isinstance(own, dict):
        raise ValueError("its ids have holes, and its kind of vocabulary takes no token behind them")
    new = [token for token in tokens if token not in vocabulary]
    own.update({token: free + place for place, token in enumerate(new)})
    document["added_tokens"] = []
    tokenizer.model = Tokenizer.from_str(json.dumps(document)).model


def misplaced(tokenizer: Tokenizer, added: Sequence[dict[str, object]]) -> tuple[str, int, int | None] | None:
    """The first of a file's added tokens that reads as another id than the file gives it: sign, the file's id, the
    one it reads as. The library numbers them anew where theirs do not follow the vocabulary."""
    for token in added:
        content, stated = token.get("content"), token.get("id")
        if isinstance(content, str) and isinstance(stated, int) and tokenizer.token_to_id(content) != stated:
            return content, stated, tokenizer.token_to_id(content)
    return None
