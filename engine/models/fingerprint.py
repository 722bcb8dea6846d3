"""Hashes of files by every byte, each counted once: of large ones the hash is remembered on the disk. Knows no torch.

A remembered hash holds for one path, size, inode and time of change. Where a file changed so shortly before it was read
that a later change could bear the same time, nothing is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from filelock import Timeout as LockTimeout

LARGE = 64 * 2**20
# The coarsest clock of a usual file system, and then some.
SAME_TIME_SECONDS = 3.0
MOST_REMEMBERED = 1_000
State = tuple[int, int, int, int, int]
_here: dict[str, tuple[State, str]] = {}


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. Reads it whole unless it is known already. Raises OSError."""
    found = known_fingerprint(path)
    if found is not None:
        return found
    # One process reads a large file while the others wait for what it finds.
    with _lock(path):
        return known_fingerprint(path) or _read(path)


def known_fingerprint(path: Path) -> str | None:
    """The SHA-256 of a file where it is remembered and the file is as it was then, else None. Raises OSError."""
    state, key = _state(path), str(path.resolve())
    if key in _here and _here[key][0] == state:
        return _here[key][1]
    if state[0] < LARGE:
        return None
    kept = _remembered().get(key)
    if isinstance(kept, list) and len(kept) == 2 and kept[0] == list(state) and isinstance(kept[1], str):
        _here[key] = (state, kept[1])
        return kept[1]
    return None


def _read(path: Path) -> str:
    began, before = time.time(), _state(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    state, key = _state(path), str(path.resolve())
    changed = max(state[1], state[2]) / 1e9
    # A disk's clock may be another one than this machine's, so that the times alone do not tell of a change meanwhile.
    if before != state or began - SAME_TIME_SECONDS < changed:
        _here.pop(key, None)
        return found
    _here[key] = (state, found)
    if state[0] >= LARGE:
        _remember(key, state, found)
    return found


def _state(path: Path) -> State:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".cache") / "rote-lab" / "fingerprints.json"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held while a large file is read; where the cache cannot be written, nobody waits."""
    if path.stat().st_size < LARGE:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, RuntimeError, LockTimeout):
            _cache().parent.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(str(path.resolve()).encode(errors="replace")).hexdigest()[:16]
            stack.enter_context(FileLock(_cache().with_name(f"{name}.lock"), timeout=1800))
        yield


def _remembered() -> dict[str, object]:
    try:
        data = json.loads(_cache().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return data if isinstance(data, dict) else {}


def _remember(key: str, state: State, found: str) -> None:
    with contextlib.suppress(OSError, RuntimeError, LockTimeout), FileLock(_cache().with_suffix(".lock"), timeout=10):
        kept = {**_remembered(), key: [list(state), found]}
        kept = dict(list(kept.items())[-MOST_REMEMBERED:])
        new = _cache().with_name(f"fingerprints.{os.getpid()}")
        new.write_text(json.dumps(kept), encoding="utf-8")
        new.replace(_cache())
