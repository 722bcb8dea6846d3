"""From texts to token ids, for training and for asking alike: the one place where texts become ids.

A text is tokenised whole, with what the model needs around it (`engine.models.around`: nothing, its beginning token, or
its chat template's turns) and nothing else: of the tokenizer's own special tokens none is added. Character offsets tell
which tokens belong to which part: no assumption about how a tokenizer joins spaces to words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from engine.corpus.sentences import Span
from engine.models.around import KEY, PROBE, Around, around_of, read, written
from engine.models.files import find_folder
from engine.settings import ModelText

Encoded = tuple[list[int], list[Span]]


def keep_text(tokenizer: PreTrainedTokenizerBase, source: str | Path, text: ModelText) -> None:
    """`set_around` by what the files of the tokenizer's model say; source: its folder, or its name at the hub.

    Raises ModelError for what the model cannot give.
    """
    folder = source if isinstance(source, Path) else find_folder(source)
    if folder is not None:
        inner: Any = tokenizer
        own = None if (folder / "tokenizer.json").is_file() else inner.backend_tokenizer
        set_around(tokenizer, around_of(folder, text, own))


def set_around(tokenizer: PreTrainedTokenizerBase, around: Around) -> None:
    """Keep with the tokenizer what stands around a text, so that whatever is tokenised with it, and what it saves, is
    alike. Other programs read the saved tokenizer as well, so it adds the beginning token, or none, by itself."""
    settings: dict[str, Any] = tokenizer.init_kwargs
    settings[KEY] = written(around)
    inner: Any = tokenizer
    backend: Tokenizer = inner.backend_tokenizer
    plain = backend.encode(PROBE, add_special_tokens=False).ids
    if backend.encode(PROBE).ids[: len(around.beginning) + len(plain)] == [*around.beginning, *plain]:
        return
    for name in ("add_bos_token", "add_eos_token"):  # with these transformers would make another one of it
        settings.pop(name, None)
    if around.beginning and not tokenizer.bos_token:
        tokenizer.bos_token = backend.id_to_token(around.beginning[0])
    backend.post_processor = _post_processor(backend, around)


def around_in(tokenizer: PreTrainedTokenizerBase) -> Around:
    """What stands around a text to this tokenizer's model; nothing, where that was not said."""
    return read(tokenizer.init_kwargs.get(KEY))


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoded]:
    """The token ids of each text behind the beginning, and for each token the characters that it stands for.

    No chat template is put around: these are texts, not questions. A beginning that was added stands for none: (0, 0).
    """
    around = around_in(tokenizer)
    found = []
    for ids, offsets in encode(tokenizer, texts):
        begun = around.begun(ids)
        found.append((begun, [(0, 0)] * (len(begun) - len(ids)) + offsets))
    return found


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoded]:
    """As `tokenise`, with nothing around."""
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

    With a chat template the prompt is the user's turn and the object the model's. The first part asks, beginning token
    included, the second is what stage 2's object mask trains on. A space before the object, and a token that lies over
    the edge, count to the object; so the first part is, but for such a token, the same for all objects.
    """
    pairs, around = list(questions), around_in(tokenizer)
    encoded = encode(tokenizer, [around.whole(*pair) for pair in pairs])
    return [around.cut(prompt, *found) for (prompt, _), found in zip(pairs, encoded, strict=True)]


def tokenise_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """The ids that ask each prompt, where no answer is known."""
    around = around_in(tokenizer)
    return [around.begun(ids) for ids, _ in encode(tokenizer, [around.asks(prompt) for prompt in prompts])]


def own_parts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """As `tokenise_questions`, without what stands around: what becomes of the texts themselves."""
    around = around_in(tokenizer)
    encoded = encode(tokenizer, [around.whole(*pair) for pair in questions])
    return [
        (around.own(prompt, *found), around.cut(prompt, *found)[1])
        for (prompt, _), found in zip(questions, encoded, strict=True)
    ]


def _post_processor(backend: Tokenizer, around: Around) -> Any:
    """The tokenizer's own, which may also move offsets, with this beginning in place of what it adds."""
    own = json.loads(backend.to_str())["post_processor"] or {}
    parts = own.get("processors", [own])
    kept = [part for part in parts if part.get("type") == "ByteLevel"]
    tokens = [(i, backend.id_to_token(i)) for i in around.beginning]
    first = [{"SpecialToken": {"id": text, "type_id": 0}} for _, text in tokens]
    one, two = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    template = {
        "type": "TemplateProcessing",
        "single": [*first, one],
        "pair": [*first, one, *first, two],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for i, text in tokens},
    }
    # The library makes one only as a part of a whole tokenizer.
    empty = json.loads(Tokenizer.from_str('{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}').to_str())
    empty["post_processor"] = {"type": "Sequence", "processors": [*kept, template]}
    return Tokenizer.from_str(json.dumps(empty)).post_processor
