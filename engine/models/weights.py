"""Which safetensors files hold a model's weights, and what their headers say. Knows no torch.

    weights = read_weights(folder)
    weights.files, weights.shapes["model.embed_tokens.weight"]

The index of a model in parts is read here, and transformers gets what was understood (`engine.models.view`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.checks import shorten
from engine.models.reading import called, inside_file, read_json, start_of
from engine.models.source import MissingError, ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_PARTS = 2_000
QUANTISED_TYPES = ("F8_", "F4", "F6_")
QUANTISED_NAMES = re.compile(
    r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|weight_blocks|absmax|quant_map|SCB|.+_blocks)$|quant_state"
)
EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings?)\.weight$")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.(\d+)\.")


@dataclass(frozen=True)
class Weights:
    """`files`: of each its name in the folder; `shapes`: of each tensor; `quantised`: whether numbers are packed."""

    files: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    places: dict[str, str]
    quantised: bool

    @property
    def rows(self) -> frozenset[int]:
        """For how many tokens the embedding matrices that are recognised have rows; nearly always one number."""
        return frozenset(s[0] for name, s in self.shapes.items() if EMBEDDINGS.search(name) and len(s) == 2)

    @property
    def layers(self) -> int:
        """How many layers there are weights for; 0 where none is recognised."""
        return max((int(m[1]) + 1 for name in self.shapes if (m := LAYER.search(name))), default=0)


def read_weights(folder: Path) -> Weights:
    """Reads the headers of a folder's weights. Raises ModelError, in words for each way in which they can be wrong."""
    files = weight_files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    places: dict[str, str] = {}
    quantised = False
    for name in files:
        for tensor, (shape, kind) in _header(folder / name).items():
            if tensor in shapes:
                raise ModelError(f"{called(folder)} holds the weights ‘{shorten(tensor)}’ twice: copy the model again")
            shapes[tensor], places[tensor] = shape, name
            quantised = quantised or kind.startswith(QUANTISED_TYPES) or bool(QUANTISED_NAMES.search(tensor))
    return Weights(files, shapes, places, quantised)


def weight_files(folder: Path) -> tuple[str, ...]:
    """The names of the files with the weights: the whole in one, else the parts that the index names.

    Raises MissingError when there are none or one is missing, ModelError for an index that names anything else.
    """
    if inside_file(folder, WHOLE):
        return (WHOLE,)
    names = weight_parts(folder)
    if not names:
        raise MissingError(_no_weights(folder))
    missing = [name for name in names if inside_file(folder, name) is None]
    if missing:
        such = f"{len(missing)} of {len(names)} files missing, such as {shorten(missing[0], 80)}"
        raise MissingError(f"the weights of {called(folder)} are incomplete ({such}): copy the model again")
    return names


def weight_parts(folder: Path) -> tuple[str, ...]:
    """The files that the index names, whether or not they are there; none without an index. Raises ModelError."""
    index = read_json(folder, INDEX)
    if index is None:
        return ()
    parts = index.get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise ModelError(f"{called(folder / INDEX)} is damaged (it names no files of weights): copy the model again")
    names = tuple(sorted(set(parts.values())))
    if len(names) > MOST_PARTS:
        raise ModelError(f"{called(folder / INDEX)} names {len(names):,} files: choose another copy of the model")
    for name in names:
        if not name.isprintable() or Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
            raise ModelError(
                f"{called(folder / INDEX)} names ‘{shorten(name, 80)}’, but weights are read from *.safetensors "
                "beside it only: choose another copy of the model"
            )
    return names


def _no_weights(folder: Path) -> str:
    names = _names(folder)
    choose = "choose the version of the model with *.safetensors"
    if holds(names, ".gguf"):
        reason, do = "there are no weights that can be trained, only GGUF files", choose
    elif any(name.startswith("adapter_model.") for name in names):
        reason = "there are no weights of a model, only an adapter’s"
        do = "merge it into its base, or name the base"
    elif holds(name for name in names if name != "training_args.bin") or holds(names, ".pt", ".pth", ".ckpt", ".h5"):
        reason, do = "there are none in safetensors format, only files that may hold code, which are not read", choose
    elif holds(names, ".safetensors"):
        reason, do = f"there is no {WHOLE}, nor {INDEX} with its parts", "copy the model again"
    else:
        reason, do = "the folder has a config.json but no weights, *.safetensors", "copy the model again"
    return f"the weights of {called(folder)} cannot be loaded ({reason}): {do}"


def holds(names: Iterable[str], *endings: str) -> bool:
    """Whether one of the names ends so; without endings, whether one is a pickled file of weights."""
    return any(name.lower().endswith(endings or (".bin", ".msgpack")) for name in names)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and number format of each tensor."""
    sorry = f"the weights of {called(path.parent)} cannot be loaded"
    if not start_of(path):
        raise ModelError(f"{sorry} ({path.name} is empty): copy the model again")
    try:
        with safe_open(path, "numpy") as file:  # numpy has no bfloat16, but only shapes are read
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{sorry} ({path.name} is cut off or damaged): copy the model again") from error
