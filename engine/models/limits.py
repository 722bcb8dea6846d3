"""How far a model reads, and how far it reads as a plain one: by its configuration alone.

Takes a `config.json` as it was read, or `config.to_dict()`; imports neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# More than any text: of a model that has no such end.
ENDLESS = 2**31

_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
_WINDOW = re.compile(r"window|chunk|local_attention|index_topk")
# How many layers have a window, and how much a feed-forward layer computes at once: no lengths of a text.
_NO_WINDOW = re.compile(r"layers|feed_forward|pattern")
_PLAIN_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
# These turn positions otherwise once a text is longer than the model was first trained on.
_CHANGING_ROPE = {"longrope", "dynamic"}


def context_of(config: Mapping[str, Any]) -> int:
    """How many tokens the model reads at most, its answer among them; ENDLESS where nothing says so."""
    own = config.get("text_config")
    texts = (config, own) if isinstance(own, Mapping) else (config,)
    return next((n for text in texts for name in _CONTEXT if (n := _length(text.get(name)))), ENDLESS)


def plain_length(config: Mapping[str, Any]) -> int:
    """Up to how many tokens each of them sees all before it, in every layer, as in a plain transformer.

    The least window, or chunk, of attention; where a changing rope changes; 0 for a model with layers of another kind,
    such as recurrent ones; ENDLESS where nothing of that is in the configuration.
    """
    lengths = [ENDLESS]
    for part in _parts(config):
        lengths += [n for name, value in part.items() if _is_window(name) and (n := _length(value))]
        if not set(part.get("layer_types") or ()) <= _PLAIN_LAYERS:
            return 0
        if part.get("rope_type", part.get("type")) in _CHANGING_ROPE:
            first = "original_max_position_embeddings"
            lengths.append(_length(part.get(first)) or _length(config.get(first)) or context_of(config))
    return min(lengths)


def _is_window(name: Any) -> bool:
    return isinstance(name, str) and bool(_WINDOW.search(name)) and not _NO_WINDOW.search(name)


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configuration and those inside it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)
