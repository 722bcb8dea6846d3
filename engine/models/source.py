"""Where a model comes from: the embedded base, a folder, or the Hugging Face hub.

resolve_source("embedded")        # the folder of the shipped weights
resolve_source("/data/llama")     # that folder, checked
resolve_source("Qwen/Qwen2.5-1.5B")
"""

from __future__ import annotations

import re
from pathlib import Path

from engine import CODE_ROOT
from engine.checks import shorten

EMBEDDED = "embedded"
EMBEDDED_WEIGHTS = CODE_ROOT / "engine" / "base" / "weights"
# The hub's own rule for names: an optional owner, then letters, digits, "-", "_" and ".", not at the edges.
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


class ModelError(ValueError):
    """A model cannot be used; the message is one sentence that says what to do."""


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
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"the folder {name} holds no config.json: give the folder of a Hugging Face model")
        return folder
    if folder.exists():
        raise ModelError(f"{name} is a file: give the folder that holds the model’s config.json and weights")
    if not _HUB_NAME.fullmatch(name):
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
