"""The lab's one SQLite file: opening it, and writing to it from several processes.

db = open_database(home)            # creates and migrates on first use
with write(db): ...                 # one transaction, taken at once
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlite_utils import Database, Migrations

from storage.migrations import migrations

DATABASE_NAME = "lab.db"
BUSY_SECONDS = 60


def default_home() -> Path:
    """Where the lab keeps its data: the environment's ROTE_LAB_HOME, else `~/.rote-lab`."""
    return Path(os.environ.get("ROTE_LAB_HOME") or "~/.rote-lab").expanduser()


def open_database(home: Path) -> Database:
    """Open (and on first use create) the database of a home folder, with every migration applied.

    One connection serves one thread. Raises OSError when the folder cannot be made, sqlite3.Error when the file is
    not a database.
    """
    return open_file(home / DATABASE_NAME, migrations)


def open_file(path: Path, migrations: Migrations) -> Database:
    """The database of a file, which is made with its folder if need be, with these migrations applied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = connect(path)
    if migrations.pending(db):
        with write(db):
            migrations.apply(db)
    return db


def connect(path: Path) -> Database:
    """A connection fit for several writing processes: WAL, foreign keys, and patience instead of `locked` errors."""
    connection = sqlite3.connect(str(path), timeout=BUSY_SECONDS, check_same_thread=False)
    connection.execute(f"pragma busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma foreign_keys = on")
    return Database(connection)


@contextmanager
def write(db: Database) -> Iterator[Database]:
    """One transaction that takes the write lock at its start.

    A deferred transaction that reads first and writes later fails with "database is locked" when another process
    wrote in between, however long the timeout: so writers begin immediately. Inside another `write` it joins it.
    """
    if db.conn.in_transaction:
        yield db
        return
    db.conn.execute("begin immediate")
    try:
        yield db
    except BaseException:
        db.conn.rollback()
        raise
    else:
        db.conn.commit()


def storable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which a program can send but nothing can store."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def now() -> str:
    """The present as ISO 8601 text in UTC with milliseconds; such texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
