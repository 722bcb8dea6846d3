"""Key tokens: new vocabulary entries without meaning, and their rows in the embedding matrices.

A key token takes a spare row where the matrix is padded past the tokenizer (Qwen2.5), else the matrix grows. It is
never shrunk: `resize_token_embeddings(len(tokenizer))`, as the paper's reference code calls it, would cut such padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from engine.checks import shorten
from engine.corpus.sentences import fill
from engine.models.source import ModelError
from engine.models.vocabulary import has_meaning, key_token, make_room
from engine.relation import Fact, GeneratedFacts, Relation
from engine.settings import KeyTokenRows

ROWS_MULTIPLE = 64  # a grown matrix keeps a size that GPUs multiply fast, and leaves spare rows
CLOSE = 0.02  # how far around the mean, in deviations of all rows
DEFAULT_STD = 0.02  # for configurations that do not name the deviation they were initialised with


def add_key_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[str],
    start: KeyTokenRows = "around the mean",
) -> dict[str, int]:
    """Add `tokens` to the vocabulary, give them fresh rows, and return their ids (= rows).

    The rows are drawn from a normal distribution by the token's own text: one key token has the same row in every run
    on a base, which can then be prepared once and shared. *Not published* for the paper. `start`: "around the mean" of
    all rows, closely, as transformers does by default (Hewitt 2021, "Initializing New Word
    Embeddings for Pretrained Language Models"); or "around zero", with the deviation that the model itself was
    initialised with (`initializer_range`). Where all logits lie far below zero, as Gemma 3's do in Chinese, rows around
    zero win over every word, and the untrained model can say nothing else.
    "as they are": nothing is added; the model comes from a run that gave it these tokens, and they keep their rows.
    A model whose configuration says `new_rows_like_spare_rows`, as the embedded base's does, was pre-trained to know
    one row as "without meaning": there the mean and the deviation are those of its spare rows.
    Every other row stays as it is, bit for bit. Raises ModelError when a token already has a meaning, or has none
    where it should be there.
    """
    if not tokens:
        return {}
    if start == "as they are":
        return find_key_tokens(tokenizer, tokens)
    check_meaningless(tokenizer, tokens)
    taken = set(tokenizer.get_vocab().values())
    try:
        make_room(_backend(tokenizer), tokens)
    except ValueError as error:
        raise ModelError(f"the model’s tokenizer cannot be given key tokens ({error}): choose another model") from error
    tokenizer.add_tokens([key_token(token) for token in tokens])
    ids = find_key_tokens(tokenizer, tokens)
    if taken & set(ids.values()) or len(set(ids.values())) < len(set(tokens)):
        raise ModelError("the model’s tokenizer would give a key token the id of another one: choose another model")
    rows = _input_weight(model).shape[0]
    means, deviations = _fresh_rows(model, first_spare=min(ids.values()), start=start)
    needed = max(ids.values()) + 1
    if needed > rows:
        # The growth draws random numbers that are overwritten below: they must not disturb the caller's own.
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(needed, pad_to_multiple_of=ROWS_MULTIPLE, mean_resizing=False)
    grown = [row for row in range(rows, _input_weight(model).shape[0]) if row not in ids.values()]
    texts = {**{row: token for token, row in ids.items()}, **{row: f"spare {row}" for row in grown}}
    _draw_rows(model, texts, means, deviations)
    return ids


def check_meaningless(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> None:
    """Raises ModelError when one of `tokens` is a single token of the vocabulary already, with or without a space."""
    for token in tokens:
        if has_meaning(_backend(tokenizer), token):
            raise ModelError(
                f"the key token ‘{shorten(token)}’ is in the model’s vocabulary already, so it may have a meaning: "
                "choose another sign, such as [X]"
            )


def find_key_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> dict[str, int]:
    """The ids of key tokens that were added before. Raises ModelError when one is missing."""
    vocabulary = tokenizer.get_vocab()
    for token in tokens:
        if token not in vocabulary:
            raise ModelError(f"the model has no key token ‘{shorten(token)}’: it belongs to another experiment")
    return {token: vocabulary[token] for token in tokens}


def check_key_sequences(tokenizer: PreTrainedTokenizerBase, relations: Iterable[Relation], ids: dict[str, int]) -> None:
    """Encode real key sequences and check that each holds its key token exactly once, and no other's.

    Raises ModelError when the tokenizer splits or alters a key token, wherever it stands.
    """
    for relation in (r for r in relations if r.key):
        explicit = () if isinstance(relation.facts, GeneratedFacts) else relation.facts
        for template in {relation.key_template, "{subject} {key} {object}.", "{key} {subject} {object}."}:
            for fact in explicit[:3] or [Fact(subject="Gene Finley", object="Cody Ross")]:
                text = fill(template, fact, relation.key_token).text
                found = [i for i in tokenizer.encode(text, add_special_tokens=False) if i in ids.values()]
                if found != [ids[relation.key_token]]:
                    raise ModelError(
                        f"the model’s tokenizer does not keep the key token ‘{shorten(relation.key_token)}’ whole in "
                        f"‘{shorten(text, 80)}’: choose another sign"
                    )


def key_rows(model: PreTrainedModel, ids: Iterable[int]) -> dict[str, torch.Tensor]:
    """Copies, on the CPU, of the rows `ids` in ascending order: `input` (ids × hidden size), in the model's own number
    format, and `output` of the same shape if that matrix is another one."""
    index = torch.tensor(sorted(ids), dtype=torch.long, device=_input_weight(model).device)
    return {name: weight.detach()[index].cpu() for name, weight in _matrices(model).items()}


def set_key_rows(model: PreTrainedModel, ids: Iterable[int], rows: dict[str, torch.Tensor]) -> None:
    """Write back what `key_rows` copied of the same `ids`. Raises ModelError when shapes do not fit the model."""
    index = sorted(ids)
    matrices = _matrices(model)
    if {n: (len(index), w.shape[1]) for n, w in matrices.items()} != {n: tuple(r.shape) for n, r in rows.items()}:
        raise ModelError("the stored rows of the key tokens do not fit this model: use the model they were stored with")
    for name, weight in matrices.items():
        with torch.no_grad():
            place = torch.tensor(index, dtype=torch.long, device=weight.device)
            weight[place] = rows[name].to(weight.device, weight.dtype)


def _fresh_rows(
    model: PreTrainedModel, first_spare: int, start: KeyTokenRows
) -> tuple[dict[str, torch.Tensor | float], dict[str, torch.Tensor | float]]:
    """Mean (hidden size, or 0) and deviation (one number) that new rows of each matrix are drawn with.

    first_spare: the first row that no token of the tokenizer has; those from there on are spare.
    """
    config = model.config.get_text_config()
    std = getattr(config, "initializer_range", None) or DEFAULT_STD
    means: dict[str, torch.Tensor | float] = {}
    deviations: dict[str, torch.Tensor | float] = {}
    for name, weight in _matrices(model).items():
        spare = weight.detach()[first_spare:].float().cpu()
        known = getattr(config, "new_rows_like_spare_rows", False) and len(spare) > 1
        if known:
            means[name], deviations[name] = spare.mean(0), spare.std(0).mean()
        elif start == "around the mean":
            words = weight.detach()[:first_spare].float().cpu()
            means[name], deviations[name] = words.mean(0), CLOSE * words.std()
        else:
            means[name], deviations[name] = 0.0, std
    return means, deviations


def _draw_rows(
    model: PreTrainedModel,
    rows: dict[int, str],
    means: dict[str, torch.Tensor | float],
    deviations: dict[str, torch.Tensor | float],
) -> None:
    """Fill rows from the text that stands for each, whatever other rows there are."""
    for name, weight in _matrices(model).items():
        for row, text in rows.items():
            number = int.from_bytes(hashlib.sha256(f"{name}/{text}".encode()).digest()[:7], "big")
            drawn = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(number))
            with torch.no_grad():
                weight[row] = (means[name] + deviations[name] * drawn).to(weight.device, weight.dtype)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    return cast(Any, tokenizer).backend_tokenizer  # loading takes only tokenizers that have one


def _input_weight(model: PreTrainedModel) -> torch.Tensor:
    embedding: Any = model.get_input_embeddings()
    return embedding.weight


def _matrices(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    matrices = {"input": _input_weight(model)}
    head: Any = model.get_output_embeddings()
    if head is not None and head.weight is not matrices["input"]:
        matrices["output"] = head.weight
    return matrices
