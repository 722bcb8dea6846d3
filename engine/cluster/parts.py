"""Files that travel between two machines in parts: each is whole, held to its SHA-256, and at a place that it may have.

A *unit* is a file, or a folder that is replaced as a whole (a checkpoint), by its place in the lab's home:
`runs/3f9a1c2e/checkpoints/memorised@3`. Parts are plain data: nothing has to be unpickled that a machine made up.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.models.checksums import CHECKSUMS, damage
from engine.models.folders import open_whole, replaced, whole

PART_BYTES = 8 << 20
MOST_FILES = 10_000
# A name of a file or folder: no path, and nothing that a shell or another system reads as more. Shards of a checkpoint
# have a `.metadata`.
_NAME = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_@.+-]{0,200}")

Part = dict[str, Any]


class RefusedFile(ValueError):
    """A file that is not as it was written, or has no place here; the message says which."""


def is_path(path: str) -> bool:
    """Whether it is one within a folder: names alone, none of them `..`, nothing absolute."""
    return all(_NAME.fullmatch(name) for name in path.split("/"))


def version_of(place: Path) -> tuple[int, int, int] | None:
    """What tells one version of a unit from the next; None while there is none."""
    try:
        about = (whole(place) or place).stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size if place.is_file() else 0


def parts_of(home: Path, unit: str) -> Iterator[Part]:
    """The parts of a unit as it is now, also when another version takes its place meanwhile. Raises OSError.

    `unit`, `file` ('' where the unit is a file itself), `data`; the last part of a file has its `sha256`, the last part
    of all says `end`.
    """
    place = home / unit
    with ExitStack() as opened:
        files = {"": opened.enter_context(place.open("rb"))} if place.is_file() else open_whole(place, opened)
        for number, (name, file) in enumerate(files.items(), 1):
            digest = hashlib.sha256()
            data = file.read(PART_BYTES)
            while True:
                digest.update(data)
                following = file.read(PART_BYTES)
                part: Part = {"unit": unit, "file": name, "data": data}
                if not following:
                    yield part | {"sha256": digest.hexdigest(), "end": number == len(files)}
                    break
                yield part
                data = following


@dataclass
class _Arriving:
    file: BinaryIO
    digest: Any


class Arrivals:
    """Puts together what arrives, in a folder of its own, and into its place when it is whole.

    may: whether a unit may be here. put: puts a file (its unit, where it lies now) into its place.
    """

    def __init__(
        self, home: Path, waiting: Path, may: Callable[[str], bool], put: Callable[[str, Path], None] | None = None
    ) -> None:
        self.home, self.waiting, self.may = home, waiting, may
        self._put = put or self._put_file
        self._unit, self._name, self._files = "", "", 0
        self._open: _Arriving | None = None

    def take(self, part: Part) -> str:
        """Take the next part; returns the unit that is whole with it, else ''. Raises RefusedFile and OSError."""
        unit, name = self._checked(part)
        if unit != self._unit:
            self.drop()
            self._unit = unit
        target = self.waiting / "unit" / name if name else self.waiting / "file"
        if self._open is None:
            self._files += 1
            if self._files > MOST_FILES:
                raise RefusedFile(f"{unit} has more than {MOST_FILES} files")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._name, self._open = name, _Arriving(target.open("wb"), hashlib.sha256())
        elif name != self._name:
            raise RefusedFile(f"{unit}: {name or 'the file'} came before {self._name} was whole")
        self._open.file.write(part["data"])
        self._open.digest.update(part["data"])
        if "sha256" not in part:
            return ""
        self._open.file.close()
        found, self._open = self._open.digest.hexdigest(), None
        if found != part["sha256"]:
            raise RefusedFile(f"{unit}: {name or 'the file'} did not arrive as it was sent")
        if not part.get("end"):
            return ""
        self._unit = ""
        if name:
            self._put_folder(unit)
        else:
            self._put(unit, target)
        self.drop()
        return unit

    def drop(self) -> None:
        """Forget what has not arrived as a whole."""
        if self._open is not None:
            self._open.file.close()
        self._unit, self._files, self._open = "", 0, None
        shutil.rmtree(self.waiting, ignore_errors=True)

    def _checked(self, part: Part) -> tuple[str, str]:
        unit, name, data = part.get("unit"), part.get("file"), part.get("data")
        if not isinstance(unit, str) or not isinstance(name, str) or not isinstance(data, bytes):
            raise RefusedFile("what arrived is no part of a file")
        if not is_path(unit) or not self.may(unit) or (name and not is_path(name)):
            raise RefusedFile(f"‘{unit}/{name}’ has no place here")
        return unit, name

    def _put_file(self, unit: str, source: Path) -> None:
        target = self.home / unit
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)

    def _put_folder(self, unit: str) -> None:
        arrived = self.waiting / "unit"
        if not (arrived / CHECKSUMS).is_file():
            raise RefusedFile(f"{unit} came without checksums")
        if problem := damage(arrived):
            raise RefusedFile(f"{unit}: {problem}")
        with replaced(self.home / unit) as new:
            for path in sorted(arrived.iterdir()):
                path.rename(new / path.name)
