"""Reads a folder that somebody else filled: ordinary files inside it only, of bounded size and depth. Knows no torch.

read_json(folder, "config.json")    # a mapping, or None where there is no such file
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.checks import shorten
from engine.models.source import ModelError

MIB = 2**20
MOST_BYTES = {"tokenizer.json": 256 * MIB, "vocab.json": 64 * MIB, "model.safetensors.index.json": 64 * MIB}
MOST_JSON_BYTES = 16 * MIB  # of all others
MOST_DEPTH = 50
POINTER = b"version https://git-lfs"


def called(path: Path) -> str:
    """A path as it may stand in a sentence."""
    return shorten(str(path), 200)


def inside_file(folder: Path, name: str) -> Path | None:
    """The file of that name in a model's folder, None where there is none.

    A link may lead to another place in the folder or, from the Hugging Face cache's snapshots, to the blobs of the same
    model. Raises ModelError for a link that leads elsewhere, and for what is no ordinary file: to open a pipe hangs.
    """
    path = folder / name
    try:
        if not path.is_symlink() and not path.exists():
            return None
        real, status = path.resolve(strict=True), path.stat()
        home = folder.resolve()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a link that leads nowhere"
        raise ModelError(f"{called(path)} cannot be read ({reason}): copy the model again") from error
    roots = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(real.is_relative_to(root) for root in roots):
        raise ModelError(f"{called(path)} is a link that leads out of the model’s folder: put the file itself there")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{called(path)} is no ordinary file: copy the model again")
    return path


def start_of(path: Path, count: int = 64) -> bytes:
    """The first bytes of a file. Raises ModelError when it may not be read, or is a pointer that git-lfs left."""
    try:
        with path.open("rb") as file:
            start = file.read(count)
    except OSError as error:
        raise ModelError(f"{called(path)} cannot be read ({error.strerror}): mend its permissions") from error
    if start.startswith(POINTER):
        raise ModelError(
            f"{called(path)} is a pointer that git left in place of a large file: fetch the file itself "
            "with ‘git lfs pull’"
        )
    return start


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """What a JSON file of a model's folder maps, None where there is no such file.

    Raises ModelError for what cannot be read: too large, too deep, no JSON, no mapping, a key named twice.
    """
    path = inside_file(folder, name)
    if path is None:
        return None
    start_of(path)
    most = MOST_BYTES.get(name, MOST_JSON_BYTES)
    try:
        if path.stat().st_size > most:
            raise ValueError(f"larger than {most // MIB} MiB")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
        if not isinstance(data, dict):
            raise TypeError("no mapping of names to values")
        if name not in MOST_BYTES and _depth(data) > MOST_DEPTH:
            raise RecursionError
    except (RecursionError, MemoryError) as error:
        raise ModelError(f"{called(path)} is damaged (nested too deeply): copy the model again") from error
    except (OSError, ValueError, TypeError) as error:
        reason = shorten(" ".join(str(error).split()), 120)
        raise ModelError(f"{called(path)} is damaged ({reason}): copy the model again") from error
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"‘{shorten(twice)}’ stands there twice")
    return found


def _depth(data: Any) -> int:
    """How deeply lists and mappings are nested, without recursion."""
    level, depth = [data], 0
    while level and depth <= MOST_DEPTH:
        level = [inner for value in level for inner in _inner(value)]
        depth += 1
    return depth


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield from (v for v in (value.values() if isinstance(value, dict) else value) if isinstance(v, (dict, list)))
