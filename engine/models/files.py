"""What can be known of a model without loading it: where its files are, its tokenizer, its size, its shape.

Reads small JSON files and the headers of safetensors; imports neither torch nor transformers, and never the network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer

from engine.checks import Problem, invisible_character, shorten
from engine.experiment import Experiment
from engine.models.around import NOTHING, Around, around_of
from engine.models.catalogue import INSTALLABLE, not_installed
from engine.models.folder_check import check_folder, read_tokenizer
from engine.models.gguf_header import read_header
from engine.models.paper_models import PAPER_MODELS
from engine.models.permitted import is_permitted, not_permitted
from engine.models.reading import inside_file, read_json
from engine.models.source import (
    EMBEDDED,
    MissingError,
    ModelError,
    converted_folder,
    from_anywhere,
    gguf_file,
    is_hub_name,
    local_path,
)
from engine.models.vocabulary import has_meaning, key_token, make_room
from engine.models.weights import read_weights
from engine.settings import ModelText

LISTED = "the lab’s list of models"
# Families whose configurations leave out that the matrix is tied.
TIED_UNLESS_SAID = ("gemma", "gemma2", "gemma3_text")


@dataclass(frozen=True)
class ModelShape:
    """The size of a model. `adapter_sizes`: inputs + outputs of every linear layer that LoRA would touch, summed;
    `tied`: whether one matrix both reads and writes the vocabulary."""

    parameters: int
    source: str
    hidden: int = 0
    layers: int = 0
    vocabulary: int = 0
    adapter_sizes: int = 0
    tied: bool = False


def find_folder(model: str) -> Path | None:
    """The folder with the model's files, if they are on this machine: the embedded one, an installed or converted one,
    a path, or the hub's cache. None for one that whoever asks may not name."""
    if not is_permitted(model):
        return None
    if file := gguf_file(model):
        return converted_folder(file)
    if model in INSTALLABLE:
        return local_path(model)
    if path := local_path(model):
        return path if path.is_dir() else None
    cached = try_to_load_from_cache(model, "config.json") if is_hub_name(model) else None
    return Path(cached).parent if isinstance(cached, str) else None


def _is_path(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~")) or model.count("/") > 1 or "\\" in model


def model_problems(model: str) -> list[Problem]:
    """What is wrong with a model as far as can be seen without loading it."""
    column = "model"
    if not model.strip():
        return [Problem("is empty: name a Hugging Face model or a folder, or choose the embedded one", None, column)]
    if hidden := invisible_character(model):
        return [Problem(f"holds the invisible character {hidden}: remove it", None, column)]
    if not is_permitted(model):
        return [Problem(not_permitted(model), None, column)]
    if model in INSTALLABLE and local_path(model) is None:
        return [Problem(not_installed(model), None, column)]
    if file := gguf_file(model):
        return _gguf_problems(file)
    folder = find_folder(model)
    called = f"‘{shorten(model, 60)}’"
    if model == EMBEDDED:
        message = "the embedded model has not been built on this machine yet, so a run would fail"
        return [] if folder else [Problem(message, None, column, "warning")]
    if folder is None:
        if local_path(model):
            message = (
                f"{called} is a file: give the folder that holds the model’s config.json and weights, or a file that "
                "ends in .gguf"
            )
            return [Problem(message, None, column)]
        if "://" in model:
            message = f"{called} is an address: give the name that the model has there, such as Qwen/Qwen2.5-1.5B"
            return [Problem(message, None, column)]
        if _is_path(model):
            return [Problem(f"there is no folder {called} on this machine: check the path", None, column)]
        if not is_hub_name(model):
            message = f"{called} is neither a Hugging Face name such as Qwen/Qwen2.5-1.5B nor a folder"
            return [Problem(message, None, column)]
        message = (
            f"{called} is not on this machine: the worker will download it when the run starts (of a folder, give the "
            "whole path)"
        )
        return [Problem(message, None, column, "warning")]
    try:
        return [Problem(words, None, column, "warning") for words in check_folder(folder).warnings]
    except ModelError as error:
        if isinstance(error, MissingError) and local_path(model) is None:
            message = f"{called} is on this machine in part: the worker will download the rest when the run starts"
            return [Problem(message, None, column, "warning")]
        return [Problem(str(error), None, column)]


def _gguf_problems(file: Path) -> list[Problem]:
    try:
        header = read_header(file)
        if folder := converted_folder(file):
            return [Problem(words, None, "model", "warning") for words in check_folder(folder).warnings]
    except ModelError as error:
        return [Problem(str(error), None, "model")]
    size = f"{header.bytes_unpacked / 1e9:.1f} GB"
    return [Problem(f"{file.name} will be converted (about {size}) when the run starts", None, "model", "warning")]


def located(experiment: Experiment) -> Experiment:
    """The experiment with a relative folder, seen from where this process works, as an absolute path."""
    return experiment.model_copy(update={"model": from_anywhere(experiment.model)})


def experiment_problems(experiment: Experiment) -> list[Problem]:
    """What is wrong with an experiment's model, and with its key tokens in that model's vocabulary."""
    file = tokenizer_file(experiment.model)
    keys = list(experiment.key_tokens)
    kept = experiment.key_token_rows == "as they are"
    found = [*model_problems(experiment.model), *(tokenizer_problems(file, keys, kept=kept) if file else [])]
    return [*found, *text_problems(experiment.model, experiment.model_text)]


def known_around(model: str, text: ModelText) -> Around:
    """What stands around a text to the model, as far as its files are on this machine: of those that are not, nothing.

    Raises ModelError for what the model cannot give.
    """
    file = tokenizer_file(model)
    return around_of(file.parent, text) if file else NOTHING


def text_problems(model: str, text: ModelText) -> list[Problem]:
    """What the experiment wants around a text and the model cannot give, if its files are on this machine."""
    try:
        known_around(model, text)
    except ModelError as error:
        return [] if any(p.severity == "error" for p in model_problems(model)) else [Problem(str(error), None, "text")]
    return []


def refuse_text(experiment: Experiment) -> None:
    """Raises ModelError with the first of `text_problems`."""
    for problem in text_problems(experiment.model, experiment.model_text):
        raise ModelError(str(problem))


def tokenizer_file(model: str) -> Path | None:
    """The model's tokenizer.json, if it is on this machine."""
    folder = find_folder(model)
    try:
        return inside_file(folder, "tokenizer.json") if folder else None
    except ModelError:  # `model_problems` says it
        return None


def load_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; a second call for the unchanged file is free. Raises ValueError, OSError."""
    return read_tokenizer(file)


def tokenizer_problems(file: Path, key_tokens: Sequence[str], *, kept: bool = False) -> list[Problem]:
    """Key tokens that the model's vocabulary has already, or that its tokenizer would cut or change even when added.

    kept: it is to have them, from a run that it comes from; those that it has not.
    """
    try:
        return list(_tokenizer_problems(file, file.stat().st_mtime_ns, tuple(key_tokens), kept))
    except (ValueError, OSError) as error:
        return [Problem(str(error), None, "model")]


@lru_cache(maxsize=64)
def _tokenizer_problems(file: Path, changed: int, key_tokens: tuple[str, ...], kept: bool) -> tuple[Problem, ...]:
    original = read_tokenizer(file)
    if kept:
        words = "is not in the model's vocabulary: take a model that a run gave it, or choose other rows to begin with"
        missing = (token for token in key_tokens if token.strip() and original.token_to_id(token) is None)
        return tuple(Problem(f"‘{shorten(token)}’ {words}", None, "key token") for token in missing)
    usable, problems = [], []
    for token in key_tokens:
        if token.strip() and has_meaning(original, token):
            message = f"‘{shorten(token)}’ is in the model's vocabulary already, so it means something: choose another"
            problems.append(Problem(message, None, "key token"))
        elif token.strip():
            usable.append(token)
    if not usable:
        return tuple(problems)
    extended = Tokenizer.from_str(original.to_str())
    try:
        make_room(extended, usable)
    except ValueError as error:
        message = f"the model's tokenizer cannot be given key tokens ({error}): choose another model"
        return (*problems, Problem(message, None, "key token"))
    extended.add_tokens([key_token(token) for token in usable])
    for token in usable:
        number = extended.token_to_id(token)
        ids = extended.encode(f"A {token} B", add_special_tokens=False).ids
        if number is None or ids.count(number) != 1:
            message = f"‘{shorten(token)}’ would be cut into pieces by the model's tokenizer: choose a plainer sign"
            problems.append(Problem(message, None, "key token"))
    return tuple(problems)


def model_shape(model: str) -> ModelShape | None:
    """The model's size: counted from its weights, else computed from config.json or the list of the paper's
    models, else read off its name, else None."""
    folder = find_folder(model)
    if folder is None and (file := gguf_file(model)):
        return _gguf_shape(file)
    config = _read_json(folder) if folder else {}
    counted = _count_weights(folder) if folder else 0
    shape = shape_from_config(config) if config else None
    if shape and counted:
        return replace(shape, parameters=counted, source="its weights")
    if counted:
        return ModelShape(counted, "its weights")
    if shape:
        return shape
    if about := PAPER_MODELS.get(model):
        listed = shape_from_config(about.fields)
        return replace(listed, source=LISTED) if listed else None
    # ‘8x7b’: a mixture of so many experts.
    if size := re.search(r"(?<![\d.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z])", model.rpartition("/")[2].lower()):
        return ModelShape(int(int(size[1] or 1) * float(size[2]) * {"b": 1e9, "m": 1e6}[size[3]]), "its name")
    return None


def _gguf_shape(file: Path) -> ModelShape | None:
    try:
        header = read_header(file)
    except ModelError:
        return None
    of = {name: header.values.get(f"{header.architecture}.{name}", 0) for name in ("embedding_length", "block_count")}
    rows = header.values.get("tokenizer.ggml.tokens", 0)
    return ModelShape(header.parameters, "its header", of["embedding_length"], of["block_count"], rows)


def shape_from_config(config: dict[str, Any]) -> ModelShape | None:
    """The shape of a decoder with gated feed-forward layers and grouped queries (Qwen2, Llama, Mistral, Phi-3).

    Per layer: queries and outputs hidden², keys and values hidden × (heads that carry them), three feed-forward
    matrices, two norms; besides them the embeddings, and the output matrix unless it is tied. Other families: None.
    """
    try:
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        inner, vocabulary = int(config["intermediate_size"]), int(config["vocab_size"])
        heads = int(config["num_attention_heads"])
        groups = int(config.get("num_key_value_heads") or heads)
        width = int(config.get("head_dim") or hidden // heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    pairs = [(hidden, heads * width), (hidden, groups * width), (hidden, groups * width), (heads * width, hidden)]
    pairs += [(hidden, inner), (hidden, inner), (inner, hidden)]
    bias = (heads + 2 * groups) * width if config.get("model_type") == "qwen2" else 0
    total = layers * (sum(a * b for a, b in pairs) + 2 * hidden + bias) + hidden
    tied = bool(config.get("tie_word_embeddings", config.get("model_type") in TIED_UNLESS_SAID))
    total += vocabulary * hidden * (1 if tied else 2)
    adapters = layers * sum(a + b for a, b in pairs)
    return ModelShape(total, "config.json", hidden, layers, vocabulary, adapters, tied)


def _count_weights(folder: Path) -> int:
    """The number of parameters by the headers of the files that a loader would read; 0 where they cannot be read."""
    try:
        return sum(math.prod(shape) for shape in read_weights(folder).shapes.values())
    except ModelError:
        return 0


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder, "config.json") or {}
    except ModelError:
        return {}
