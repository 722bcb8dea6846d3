"""Where a model comes from: the embedded base, a folder, or the Hugging Face hub.

resolve_source("embedded")        # the folder of the shipped weights
resolve_source("/data/llama")     # that folder, checked
resolve_source("Qwen/Qwen2.5-1.5B")
"""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id

from engine import CODE_ROOT
from engine.checks import shorten

EMBEDDED = "embedded"
EMBEDDED_WEIGHTS = CODE_ROOT / "engine" / "base" / "weights"


class ModelError(ValueError):
    """A model cannot be used; the message is one sentence that says what to do."""


class MissingError(ModelError):
    """Files of a model are not there; for one of the hub they may still come."""


def is_hub_name(name: str) -> bool:
    """Whether the hub could have a model of this name, such as `gpt2` or `Qwen/Qwen2.5-1.5B`."""
    if not name.isascii():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def local_path(name: str) -> Path | None:
    """The embedded weights' folder, or the path of that name, where there is something."""
    try:
        path = EMBEDDED_WEIGHTS if name == EMBEDDED else Path(name).expanduser()
        return path if name.strip() and path.exists() else None
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return None


def resolve_source(name: str) -> str | Path:
    """The folder that an experiment's `model` names, or the hub name unchanged.

    Raises ModelError when a folder is meant that does not exist or holds no `config.json`, and for what can be neither.
    """
    if name == EMBEDDED:
        if not (EMBEDDED_WEIGHTS / "config.json").is_file():
            raise ModelError(
                f"the embedded model’s weights are missing from {EMBEDDED_WEIGHTS}: check the project out again, "
                "or train them with ‘python -m engine.base’"
            )
        return EMBEDDED_WEIGHTS
    if path := local_path(name):
        if not path.is_dir():
            raise ModelError(
                f"{shorten(name, 200)} is a file: give the folder that holds the model’s config.json and weights"
            )
        if not os.path.lexists(path / "config.json"):  # what else it may be, `engine.models.reading` says
            raise MissingError(without_config(path))
        return path
    if not is_hub_name(name):
        raise ModelError(
            f"there is no folder ‘{shorten(name, 200)}’: give an existing folder, ‘{EMBEDDED}’, "
            "or a Hugging Face name such as Qwen/Qwen2.5-1.5B"
        )
    return name


def from_anywhere(name: str) -> str:
    """A folder as an absolute path, since a worker looks from elsewhere; any other name as it is."""
    try:
        folder = Path(name).expanduser()
        return str(folder.resolve()) if name != EMBEDDED and folder.is_dir() else name
    except (OSError, RuntimeError):
        return name


def without_config(folder: Path) -> str:
    """The sentence about a folder that holds no config.json, by what it holds instead."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        return f"the folder {shorten(str(folder), 200)} cannot be read ({error.strerror}): mend its permissions"
    called = f"the folder {shorten(str(folder), 200)} holds no config.json"
    if "adapter_config.json" in names:
        return f"{called} but an adapter, which is no model by itself: merge it into its base, or name the base"
    if any(name.lower().endswith(".gguf") for name in names):
        return f"{called} but GGUF files, which cannot be trained: choose the version of the model with *.safetensors"
    if "params.json" in names or "model_index.json" in names:
        return f"{called} but a model in another format: choose its version for transformers, with a config.json"
    return f"{called}: give the folder of a Hugging Face model"
