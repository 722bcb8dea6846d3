"""What is wrong with the lab's files, in one sentence that says what to do: damaged, in use, full, not to be written.

say_trouble(error)      # for what SQLite or the system raised; works at the command line, in a run and on the page
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

DISK_FULL = "the disk is full: free some space (old runs can be deleted on the Runs page), then try again"
NEARLY_FULL_BYTES = 2**20


class UnusableDatabase(sqlite3.DatabaseError):
    """A database cannot be used; the message is one sentence that says what to do."""


class NewerDatabase(UnusableDatabase):
    """A newer version of the lab used it."""


class DamagedDatabase(UnusableDatabase):
    """It is not merely in use, of a newer lab or not to be written: what it held cannot be read any more."""


def say_trouble(error: BaseException, path: Path | None = None) -> str:
    """One sentence, without a full stop, for a sqlite3.Error or an OSError. `path`: the database, where it is known."""
    if isinstance(error, UnusableDatabase):
        return str(error)
    if is_disk_full(error, path):
        return DISK_FULL
    if isinstance(error, sqlite3.Error):
        return _sqlite_trouble(error, str(path) if path else "the lab's database")
    if isinstance(error, OSError):
        where = error.filename or path or "a file of the lab"
        return f"{where} cannot be used ({error.strerror or error}): mend that, then try again"
    return str(error)


def is_disk_full(error: BaseException, path: Path | None = None) -> bool:
    """Whether the error says, in any of its dialects, that no space is left (on the disk of `path`, if it is vague)."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error).lower()
    if isinstance(error, sqlite3.Error):
        return "disk is full" in text or ("disk i/o" in text and (path is None or _no_space(path)))
    # safetensors wraps the operating system's error in one of its own and keeps only the words.
    return "no space left on device" in text or "os error 28" in text


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that what a file holds cannot be read."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, DamagedDatabase) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged(where: object, why: str) -> str:
    """The sentence for a file that is no database of the lab."""
    return (
        f"{where} is damaged or no database of the lab ({why}): put back a copy of it, or move it away, and the lab "
        "begins an empty one"
    )


def _sqlite_trouble(error: sqlite3.Error, where: str) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = " ".join(str(error).split())
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{where} is held by another program for too long: end that (a backup, a database browser), then retry"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH):
        return f"{where} cannot be opened for writing ({text}): mend the permissions of it and its folder, then retry"
    if code == sqlite3.SQLITE_IOERR:
        return f"{where} cannot be read or written ({text}): look after the disk, then retry"
    return damaged(where, text)


def _no_space(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < NEARLY_FULL_BYTES
    except OSError:
        return False
