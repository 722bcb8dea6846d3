"""Which weights a run began from: the base model may be trained again, or replaced, while older runs remain.

Every checkpoint notes the key of its base. An adapter on other weights than those it was trained on would answer
nonsense, and say nothing. Knows no torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.experiment import Experiment
from engine.models.source import ModelError, resolve_source

NOTE = "trained_on.json"
# Files up to this size are known by all that is in them, larger ones by parts spread over them: training changes all.
HASHED_BYTES = 64 * 2**20
PARTS, PART_BYTES = 16, 2**20
_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")


def base_key(experiment: Experiment) -> str:
    """Twelve hexadecimal digits that stand for base model, precision and key tokens in their order.

    A folder's model is known by what is in its files, one of the Hugging Face hub by its name alone.
    """
    try:
        source = resolve_source(experiment.model)
    except ModelError:
        source = f"missing:{experiment.model}"
    identity: Any = source if isinstance(source, str) else _identity(source)
    content = [identity, experiment.precision, [relation.key_token for relation in experiment.relations]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def note_base(folder: Path, key: str) -> None:
    """Write down which base the checkpoint in `folder` was trained on; nothing where that is not known."""
    if key:
        (folder / NOTE).write_text(json.dumps({"base": key}) + "\n", encoding="utf-8")


def noted_base(folder: Path) -> str:
    """The key of the base that a checkpoint was trained on; '' for checkpoints of before this was noted."""
    try:
        return str(json.loads((folder / NOTE).read_text(encoding="utf-8"))["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def check_same_base(folder: Path, key: str) -> None:
    """Raises ModelError when the adapter in `folder` was trained on another base than the one of that key."""
    if noted_base(folder) not in ("", key):
        raise ModelError(other_base(folder))


def other_base(folder: Path) -> str:
    """The sentence about an adapter whose base is no longer there."""
    return (
        f"the adapter in {folder} was trained on other weights of the base model, which was trained again or replaced "
        "since: run the experiment again"
    )


def _identity(folder: Path) -> list[list[Any]]:
    files = sorted({p for pattern in _MODEL_FILES for p in folder.glob(pattern)})
    return [[p.name, _fingerprint(p, p.stat().st_size, p.stat().st_mtime_ns)] for p in files]


@lru_cache(maxsize=256)
def _fingerprint(path: Path, size: int, modified: int) -> str:
    if size <= HASHED_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for part in range(PARTS):
            file.seek(part * (size - PART_BYTES) // (PARTS - 1))
            found.update(file.read(PART_BYTES))
    return found.hexdigest()
