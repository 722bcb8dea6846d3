"""Checksums of a folder's files, so that damage is known before anything is built on it. Knows no torch.

write_checksums(folder)     # the last file that is written into it
damage(folder)              # what is wrong, in words; '' for a sound one, and for one of before there were checksums
check_intact(folder)        # raises ModelError that says what to do
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from engine.models.source import ModelError

CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Note the SHA-256 of every file in the folder. Raises OSError."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / CHECKSUMS)
    sums = {p.relative_to(folder).as_posix(): _checksum(p) for p in files}
    (folder / CHECKSUMS).write_text(json.dumps({"sha256": sums}, indent=1) + "\n", encoding="utf-8")


def read_checksums(text: bytes) -> dict[str, str]:
    """The SHA-256 of each file, by its path in the folder. Raises ValueError for what is no such list."""
    try:
        return dict(json.loads(text)["sha256"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no list of checksums: {error}") from error


def damage(folder: Path) -> str:
    """Which file is missing, unreadable or another one than was written; '' when all are as they were."""
    try:
        sums = read_checksums((folder / CHECKSUMS).read_bytes())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return f"{CHECKSUMS} cannot be read"
    for name, expected in sums.items():
        path = folder / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if _checksum(path) != expected:
                return f"{name} is not as it was written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def check_intact(folder: Path) -> None:
    """Raises ModelError when a file of a kept checkpoint, or of a prepared base, is not as it was written."""
    problem = damage(folder)
    if problem and folder.parent.name == "checkpoints":
        name, run = folder.name.removeprefix(".").removesuffix(".old"), folder.parents[1].name
        raise ModelError(
            f"the checkpoint {name} of run {run} is damaged ({problem}): `rote-lab retry {run}` sets it aside and "
            "trains it again"
        )
    if problem:
        raise ModelError(f"{folder} is damaged ({problem}): delete that folder, and it is made anew")


def _checksum(path: Path) -> str:
    about = path.stat()
    return _hashed(path, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


@lru_cache(maxsize=4096)  # a process that asks again about a file that nobody touched reads it only once
def _hashed(path: Path, size: int, modified: int, changed: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
