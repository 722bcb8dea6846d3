"""A folder, or a file, that is replaced whole: whoever reads it finds the old one or the new one, never a part.

with replaced(folder) as new:     # write into `new`; on leaving the block it takes the place of `folder`
    ...
whole(folder)                     # where the whole one lies, or None
open_whole(folder, opened)        # its files, which can be read on while another one takes its place
write_whole(file, data)
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from engine.models.checksums import write_checksums


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")


def whole(folder: Path) -> Path | None:
    """The folder, or the older one that a killed replacement had just moved aside, or None.

    Changes nothing, so that it may be asked while another process writes.
    """
    # Once more at the end: the new one may have come between the first two looks.
    return next((path for path in (folder, _beside(folder, "old"), folder) if path.is_dir()), None)


def names_in(parent: Path) -> list[str]:
    """What lies in a folder, by its name, also what a replacement had just moved aside; nothing that is half written.

    Raises FileNotFoundError.
    """
    names = (path.name for path in parent.iterdir())
    found = {name[1 : -len(".old")] if name.startswith(".") and name.endswith(".old") else name for name in names}
    return sorted(name for name in found if not name.startswith("."))


def open_whole(folder: Path, opened: ExitStack, attempts: int = 5) -> dict[str, BinaryIO]:
    """Every file of the whole version, by its path in the folder, opened: all of one version, whatever takes its place
    then. {} where there is none. `opened` closes them. Raises OSError."""
    for _ in range(attempts):
        with ExitStack() as these:
            try:
                found = whole(folder)
                before = _version(found)
                if found is None:
                    return {}
                paths = sorted(path for path in found.rglob("*") if path.is_file() and not path.is_symlink())
                files: dict[str, BinaryIO] = {
                    path.relative_to(found).as_posix(): these.enter_context(path.open("rb")) for path in paths
                }
                # An older one that was moved aside may have been half removed already.
                if _version(whole(folder)) == before:
                    opened.push(these.pop_all())
                    return files
            except FileNotFoundError:
                continue
    return {}


def _version(folder: Path | None) -> tuple[int, int] | None:
    about = folder.stat() if folder else None
    return (about.st_ino, about.st_mtime_ns) if about else None


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Write a new version of `folder` into the yielded empty sibling; it is put in place when the block ends well.

    One writer at a time. Everything, with its checksums, is on the disk before the names change; a process killed at
    any moment leaves one whole version for `whole` to find, and what it left half done is cleaned by the next call.
    When the block fails, the old version stays. Raises OSError (also for a full disk met by safetensors, whose own
    error is none).
    """
    new, old = _beside(folder, "new"), _beside(folder, "old")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)
    if new.exists():
        shutil.rmtree(new)
    new.mkdir()
    try:
        yield new
        write_checksums(new)
        _flush(new)
    except SafetensorError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise _as_os_error(error) from error
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    _flush_names(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def write_whole(file: Path, data: bytes) -> None:
    """Write a file in place of an older one, which stays where this fails. Raises OSError."""
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _as_os_error(error: SafetensorError) -> OSError:
    """safetensors reports a failed write as its own exception with "(os error 28)" in the text."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code))


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _flush_names(folder)


def _flush_names(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and keeps names in order by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def linked_copy(source: Path, target: Path) -> None:
    """Put a folder there that takes no room twice: its files are second names of the same, or copies where there can be
    none. It is there as a whole or not at all."""
    half = target.with_name(f".{target.name}.shared")
    shutil.rmtree(half, ignore_errors=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, half, copy_function=link_or_copy)
    half.rename(target)


def link_or_copy(source: str | Path, target: str | Path) -> str | Path:
    """Give a file a second name, or copy it where a disk has no such thing. Raises OSError."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
