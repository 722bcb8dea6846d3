"""Where a model comes from: the embedded base, an installed one, a folder, a GGUF file, or the Hugging Face hub.

resolve_source("embedded")        # the folder of the shipped weights
resolve_source("gemma-3-270m")    # where it is installed, below the lab's home
resolve_source("/data/llama")     # that folder, checked
resolve_source("Qwen/Qwen2.5-1.5B")
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id

from engine import CODE_ROOT
from engine.checks import shorten
from engine.models.catalogue import INSTALLABLE, installed, models_folder, not_installed
from engine.models.fingerprint import known_fingerprint
from engine.models.permitted import is_permitted, not_permitted

EMBEDDED = "embedded"
# On a machine of a cluster, for the processes of a run: the home of the lab that owns it, and where what came of that
# lies, as JSON.
CARRIED_HOME = "ROTE_LAB_CARRIED_HOME"
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
    """The embedded weights' folder, that of an installed model, or the path of that name, where there is something."""
    try:
        if name in INSTALLABLE:
            return installed(name)
        if not is_permitted(name):
            return None
        path = EMBEDDED_WEIGHTS if name == EMBEDDED else _carried(Path(name).expanduser())
        return path if name.strip() and path.exists() else None
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return None


def _carried(path: Path) -> Path:
    """Where it lies on this machine, if it came here with a run; else as it is."""
    there, here = json.loads(os.environ.get(CARRIED_HOME) or "[null, null]")
    if there is None or not path.is_relative_to(there):
        return path
    came = Path(here) / path.relative_to(there)
    return came if came.exists() else path


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
    if not is_permitted(name):
        raise ModelError(not_permitted(name))
    if name in INSTALLABLE and installed(name) is None:
        raise MissingError(not_installed(name))
    if file := gguf_file(name):
        if folder := converted_folder(file):
            return folder
        raise MissingError(f"{shorten(str(file), 200)} has not been converted yet: it is when a run of it starts")
    if path := local_path(name):
        if not path.is_dir():
            raise ModelError(
                f"{shorten(name, 200)} is a file: give the folder that holds the model’s config.json and weights, or a "
                "file that ends in .gguf"
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


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name means: one that ends so, or the only one in a folder without config.json."""
    path = None if name in INSTALLABLE else local_path(name)
    if path is None:
        return None
    try:
        if not path.is_dir():
            return path if path.suffix.lower() == ".gguf" else None
        if os.path.lexists(path / "config.json"):
            return None
        found = [file for file in path.iterdir() if file.suffix.lower() == ".gguf"]
    except OSError:
        return None
    return found[0] if len(found) == 1 and not found[0].is_symlink() else None


def converted_folder(file: Path) -> Path | None:
    """Where the conversion of a GGUF file lies, known by its bytes; None while there is none. Reads nothing."""
    try:
        known = known_fingerprint(file)
    except OSError:
        return None
    folder = models_folder() / f"gguf-{known[:16]}" if known else None
    return folder if folder and folder.is_dir() else None


def from_anywhere(name: str) -> str:
    """A folder or GGUF file as an absolute path, since a worker looks from elsewhere; any other name as it is."""
    try:
        folder = Path(name).expanduser()
        known = name == EMBEDDED or name in INSTALLABLE or not is_permitted(name)
        return str(folder.resolve()) if not known and (folder.is_dir() or gguf_file(name)) else name
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
        return f"{called} but several GGUF files, or links to them: name one of them, with its whole path"
    if "params.json" in names or "model_index.json" in names:
        return f"{called} but a model in another format: choose its version for transformers, with a config.json"
    return f"{called}: give the folder of a Hugging Face model"
