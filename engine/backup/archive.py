"""One file that carries many, each held to its checksum: a tar archive, which any tar opens too.

rote-lab.json      first: what the archive holds
…                  the files; those that are one file under several names, once
checksums.json     last: the SHA-256 of every file before it
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from engine.models.checksums import CHECKSUMS, read_checksums
from engine.models.folders import link_or_copy, open_whole, whole

HEAD, SUMS = "rote-lab.json", "checksums.json"
FORMAT = 1
PIECE = 1 << 20
MOST_JSON = 100_000_000


class Writer:
    """Adds files to an archive. `sums`: the SHA-256 of each so far."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._names: dict[tuple[int, int, int], str] = {}  # of each file on the disk, the name under which it is in
        self.sums: dict[str, str] = {}

    def add(self, name: str, path: Path) -> None:
        """Add a file as long as it is now; one that goes on to grow is cut there. Raises OSError."""
        with path.open("rb") as file:
            self._add(name, file)

    def add_folder(self, name: str, folder: Path) -> str:
        """Add a folder that others may replace, or remove, as a whole meanwhile. Raises OSError.

        Returns which file is another one than the checksums in the folder say; '' when none is.
        """
        sums: dict[str, str] = {}
        with ExitStack() as opened:
            files = open_whole(folder, opened)
            if not files and whole(folder):
                return "it has no files, or no two looks at it found the same"
            for inside, file in files.items():
                if inside == CHECKSUMS:
                    try:
                        sums = read_checksums(file.read())
                    except ValueError:
                        sums = {CHECKSUMS: ""}
                    file.seek(0)
                self._add(f"{name}/{inside}", file)
        wrong = (inside for inside, expected in sums.items() if self.sums.get(f"{name}/{inside}") != expected)
        return next((f"{inside} is not as it was written" for inside in wrong), "")

    def _add(self, name: str, file: IO[bytes]) -> None:
        about = os.fstat(file.fileno())
        info = tarfile.TarInfo(name)
        info.mtime, info.mode = int(about.st_mtime), 0o644
        place = (about.st_dev, about.st_ino, about.st_mtime_ns)
        if about.st_nlink > 1 and (first := self._names.get(place)):
            info.type, info.linkname = tarfile.LNKTYPE, first
            self._archive.addfile(info)
            self.sums[name] = self.sums[first]
            return
        info.size = about.st_size
        hashed = _Hashed(file, about.st_size)
        self._archive.addfile(info, hashed)
        self._names[place], self.sums[name] = name, hashed.digest.hexdigest()

    def add_json(self, name: str, document: Any) -> None:
        """Add a small document."""
        data = json.dumps(document, ensure_ascii=False, indent=1).encode()
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._archive.addfile(info, BytesIO(data))
        self.sums[name] = hashlib.sha256(data).hexdigest()


class _Hashed:
    """Reads so many bytes of a file and knows their SHA-256. Raises OSError where there are fewer."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left, self.digest = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self.digest.update(data)
        if not data and self._left:
            raise OSError(f"{self._file.name} became shorter while it was read")
        return data


@contextmanager
def new_archive(path: Path, about: dict[str, Any]) -> Iterator[Writer]:
    """A new archive, which takes its name when the block ends well; else nothing is left of it.

    Raises ValueError when something has that name already, and OSError.
    """
    if os.path.lexists(path):
        raise ValueError(f"{path} is there already: name a new file")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                writer = Writer(archive)
                writer.add_json(HEAD, {"format": FORMAT, **about})
                yield writer
                writer.add_json(SUMS, {"sha256": writer.sums})
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def read_head(path: Path) -> dict[str, Any]:
    """What an archive says that it holds. Raises ValueError for what is none, or of a newer lab, and OSError."""
    with _opened(path) as archive:
        return _head(path, archive)


def read_archive(path: Path, into: Path | None = None) -> int:
    """Read an archive through, and write its files into an empty folder, if one is named; returns how many they are.

    What was written is worth nothing when this raises: ValueError that names the file which is damaged, missing or has
    no place in an archive, or OSError.
    """
    found: dict[str, str] = {}
    said: dict[str, str] | None = None
    with _opened(path) as archive:
        _head(path, archive)
        for member in archive:
            if member.name == SUMS:
                said = _json(archive, member)["sha256"]
                if not isinstance(said, dict):
                    raise tarfile.TarError(f"{SUMS} has no checksums")
                break
            if not _has_a_place(member, found):
                raise ValueError(f"{path} is no archive of the lab: ‘{member.name}’ has no place in it")
            found[member.name] = found[member.linkname] if member.islnk() else _read(archive, member, into)
            if into is not None and member.islnk():
                (into / member.name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(into / member.linkname, into / member.name)
    if said is None:
        raise ValueError(f"{path} is damaged or cut off after {next(reversed(found), HEAD)}: take another copy of it")
    for name in sorted(said.keys() | found.keys()):
        if said.get(name) != found.get(name):
            raise ValueError(f"{path} is damaged: {name} is not as it was written: take another copy of it")
    return len(found) - 1


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no archive of the lab ({error})") from error


def _head(path: Path, archive: tarfile.TarFile) -> dict[str, Any]:
    first = archive.next()
    if first is None or first.name != HEAD:
        raise ValueError(f"{path} is no archive of the lab")
    head = _json(archive, first)
    if head["format"] != FORMAT:
        raise ValueError(f"{path} was written by a newer version of the lab: open it with that one")
    return head


def _json(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    """A document of the archive. Raises tarfile.TarError where it is damaged."""
    file = archive.extractfile(member)
    if file is None or member.size > MOST_JSON:
        raise tarfile.TarError(f"{member.name} cannot be read")
    try:
        return dict(json.loads(file.read()))
    except ValueError as error:  # also of text that is not UTF-8
        raise tarfile.TarError(f"{member.name}: {error}") from error


def _has_a_place(member: tarfile.TarInfo, found: dict[str, str]) -> bool:
    """Whether it is a file within the archive's own folder, or another name of one that came before.

    One with holes (which the lab writes none of) may claim to be longer than any disk.
    """
    parts = PurePosixPath(member.name).parts
    within = bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in member.name
    plain = member.isreg() and not member.issparse() and member.size >= 0
    return within and member.name not in found and (plain or (member.islnk() and member.linkname in found))


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path | None) -> str:
    source = archive.extractfile(member)
    assert source is not None
    hashed = _Hashed(source, member.size)
    if into is None:
        while hashed.read(PIECE):
            pass
    else:
        (into / member.name).parent.mkdir(parents=True, exist_ok=True)
        with (into / member.name).open("xb") as target:
            shutil.copyfileobj(hashed, target, PIECE)
    return hashed.digest.hexdigest()
