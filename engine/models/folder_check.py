"""What can be said against a model's folder before anything is loaded; the page and the loader ask the same.

    check_folder(folder).warnings     # raises ModelError with the first reason why the model cannot be used

Reads settings, the headers of the weights and the tokenizer, once for as long as no file changes. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.checks import shorten
from engine.models.architectures import check_architecture, quantised, ties_by_itself
from engine.models.reading import called, inside_file, read_json, start_of
from engine.models.source import MissingError, ModelError, without_config
from engine.models.view import FILES, SETTINGS
from engine.models.vocabulary import last_id, misplaced
from engine.models.weights import EMBEDDINGS, Weights, read_weights

QUANTISED_BY = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
FEW = 0.6  # a tokenizer that uses less of the rows than this is probably not the model's own


@dataclass(frozen=True)
class Checked:
    """A folder that holds a model. `warnings`: sentences about what may be meant."""

    weights: Weights
    warnings: tuple[str, ...] = ()


def check_folder(folder: Path) -> Checked:
    """Checks a folder. Raises ModelError, one sentence, when the model in it cannot be loaded."""
    found = _check(folder, _state(folder))
    if isinstance(found, ModelError):
        raise type(found)(str(found))
    return found


def _state(folder: Path) -> tuple[Any, ...]:
    """What changes when a file of the folder does."""
    try:
        return tuple(sorted(_entry(path) for path in folder.iterdir()))
    except OSError as error:
        raise ModelError(
            f"the folder {called(folder)} cannot be read ({error.strerror}): mend its permissions"
        ) from error


def _entry(path: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return path.name, 0, 0, 0, 0, 0
    return path.name, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@lru_cache(maxsize=16)
def _check(folder: Path, state: tuple[Any, ...]) -> Checked | ModelError:
    try:
        return _checked(folder)
    except ModelError as error:
        return error


def _checked(folder: Path) -> Checked:
    config = read_json(folder, "config.json")
    if config is None:
        raise MissingError(without_config(folder))
    where = called(folder)
    if any((folder / name).exists() for name in QUANTISED_BY):
        raise ModelError(quantised(where))
    weights = read_weights(folder)
    check_architecture(config, where)
    if weights.quantised:
        raise ModelError(quantised(where))
    for setting in SETTINGS:
        read_json(folder, setting)
    for file in FILES:
        inside_file(folder, file)
    _check_fit(config, weights, where)
    return Checked(weights, _check_tokenizer(folder, weights, where))


def _check_fit(config: dict[str, Any], weights: Weights, where: str) -> None:
    """What the settings and the shapes of the weights tell of each other, as far as their names are known."""
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    rows, layers = text.get("vocab_size"), text.get("num_hidden_layers", text.get("n_layer"))
    if isinstance(layers, int) and 0 < weights.layers < layers:
        raise ModelError(
            f"the weights of {where} are incomplete ({layers - weights.layers} of {layers} layers missing): "
            "copy the model again"
        )
    if isinstance(rows, int) and weights.rows and rows not in weights.rows:
        raise ModelError(
            f"the weights of {where} cannot be loaded (they have rows for {max(weights.rows):,} tokens, config.json "
            f"says {rows:,}): copy the model again, with weights that fit its config.json"
        )
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    ends = (ties_by_itself(str(text.get("model_type"))) if tied is None else tied) or any(
        shape[:1] == (rows,) and not EMBEDDINGS.search(name) for name, shape in weights.shapes.items()
    )
    if weights.rows and not ends:
        raise ModelError(
            f"the weights of {where} are incomplete (the output matrix is missing, so the model cannot continue text): "
            "copy the model again"
        )


def _check_tokenizer(folder: Path, weights: Weights, where: str) -> tuple[str, ...]:
    if inside_file(folder, "tokenizer.json") is None:
        if inside_file(folder, "vocab.json") and inside_file(folder, "merges.txt"):
            return ()
        raise MissingError(
            f"the tokenizer of {where} is missing or of an older kind: the model needs its tokenizer.json"
        )
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    added = (read_json(folder, "tokenizer.json") or {}).get("added_tokens") or []
    if wrong := misplaced(tokenizer, added):
        content, stated, got = wrong
        raise ModelError(
            f"the tokenizer of {where} gives ‘{shorten(content)}’ the id {stated}, but it is read as {got}: "
            "choose another copy of the model"
        )
    if not weights.rows:
        return ()
    rows = max(weights.rows)
    tokens = last_id(tokenizer) + 1
    later = {token.get("content") for token in added}
    own = max((i for t, i in tokenizer.get_vocab(with_added_tokens=False).items() if t not in later), default=-1) + 1
    # What was added may come after the rows: it gets new ones, as key tokens do.
    if own > rows:
        raise ModelError(
            f"the tokenizer of {where} has {own:,} tokens, but the weights have rows for {rows:,}: it belongs "
            "to another model, so copy the tokenizer.json that belongs to these weights"
        )
    if tokens > rows:
        return (f"its tokenizer has {tokens - rows:,} more tokens than the weights have rows: those get new ones",)
    if tokens < FEW * rows:
        return (
            f"its tokenizer has {tokens:,} tokens, far fewer than the {rows:,} that the weights have rows for: "
            "it may belong to another model",
        )
    return ()


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; a second call for the unchanged file is free. Raises ModelError."""
    inside_file(file.parent, file.name)
    start_of(file)
    found = file.stat()
    return _read_tokenizer(file, (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=4)
def _read_tokenizer(file: Path, state: tuple[int, ...]) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        reason = shorten(" ".join(str(error).split()), 120)
        raise ModelError(
            f"the tokenizer of {called(file.parent)} cannot be loaded ({file.name} cannot be read as a tokenizer: "
            f"{reason}): the model needs its own tokenizer.json"
        ) from error
