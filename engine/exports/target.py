"""Files that are made in memory and written where a person asked for them, whole or not at all."""

from __future__ import annotations

import io
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Files = dict[str, str]  # path inside the folder, with `/`; its text


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes its place when the block ends well; else nothing is left of it.

    One that is there keeps its permissions. Raises ValueError when something is there already that is not an empty
    folder, or that cannot be replaced, and OSError.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise ValueError(f"{folder} is there already: name a folder that is new or empty")
    folder = folder.absolute()
    if folder.is_mount():
        raise ValueError(f"{folder} is a disk of its own, which no folder can take the place of: name a folder on it")
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    new.mkdir()
    try:
        if folder.exists():
            new.chmod(folder.stat().st_mode & 0o777 | 0o700)
        yield new
        if folder.exists():
            folder.rmdir()
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Write the files into a new folder. Raises ValueError and OSError as `new_folder` does."""
    with new_folder(folder) as new:
        for name, text in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")


def zipped(files: Mapping[str, str], folder: str) -> bytes:
    """The files as a zip archive in which they lie in `folder`. The same files give the same bytes."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), text, zipfile.ZIP_DEFLATED)
    return memory.getvalue()
