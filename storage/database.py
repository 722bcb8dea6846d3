"""The lab's one SQLite file: opening it, and writing to it from several processes.

db = open_database(home)            # creates and migrates on first use
with write(db): ...                 # one transaction, taken at once

Nothing but SQLite opens its files in a process that has the database open: closing one lets go all locks of the
process on it, and another process may then cut what this one has mapped.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlite_utils import Database, Migrations

from storage.acting import check_may_run
from storage.migrations import migrations
from storage.trouble import DamagedDatabase, NewerDatabase, UnusableDatabase, damaged, is_damage, say_trouble

DATABASE_NAME = "lab.db"
BUSY_SECONDS = 60


def default_home() -> Path:
    """Where the lab keeps its data: the environment's ROTE_LAB_HOME, else `~/.rote-lab`."""
    return Path(os.environ.get("ROTE_LAB_HOME") or "~/.rote-lab").expanduser()


def open_database(home: Path) -> Database:
    """Open (and on first use create) the database of a home folder, with every migration applied.

    One connection serves one thread. Raises UnusableDatabase (an sqlite3.Error) with a sentence when the file is
    damaged, of a newer lab, of another program, in use for too long or not to be written, and OSError when the folder
    cannot be made. Nothing is written to a file that is refused.
    """
    path = home / DATABASE_NAME
    try:
        if path.is_file() and not path.stat().st_size and any((home / "runs").glob("*")):
            raise DamagedDatabase(damaged(path, "it is empty, although there are runs"))
    except OSError as error:
        raise UnusableDatabase(say_trouble(error, path)) from error
    return open_file(path, migrations)


def open_file(path: Path, migrations: Migrations) -> Database:
    """The database of a file, which is made with its folder if need be, with these migrations applied. Raises as
    `open_database` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = None
    try:
        _look_at(path, migrations)
        db = connect(path)
        if migrations.pending(db):
            with write(db):
                migrations.apply(db)
    except UnusableDatabase:
        raise
    except (sqlite3.Error, OSError) as error:
        if db is not None:
            db.close()
        raise _unusable(error, path) from error
    return db


def check_whole(home: Path) -> None:
    """Read the database of a home folder through, if there is one. Raises UnusableDatabase when it is damaged."""
    with closing(open_database(home)) as db:
        path = home / DATABASE_NAME
        try:
            found = db.conn.execute("pragma quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise _unusable(error, path) from error
        if found != "ok":
            raise DamagedDatabase(damaged(path, " ".join(str(found).split())[:160]))


def _unusable(error: Exception, path: Path) -> UnusableDatabase:
    return (DamagedDatabase if is_damage(error) else UnusableDatabase)(say_trouble(error, path))


def _look_at(path: Path, migrations: Migrations) -> None:
    """Raises UnusableDatabase for what is not ours, or of a newer lab, before anything could be written to it."""
    if path.is_dir():
        raise DamagedDatabase(damaged(path, "it is a folder"))
    if not path.exists() or not path.stat().st_size:
        return
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    with closing(Database(connection)) as db:
        applied = {m.name for m in migrations.applied(db)}
        if not applied and (tables := db.table_names()):
            raise DamagedDatabase(damaged(path, f"it holds {', '.join(tables[:3])}"))
        if newer := applied - _known(migrations):
            raise NewerDatabase(
                f"{path} was used by a newer version of the lab ({', '.join(sorted(newer))}): start that version, or "
                "name another folder with --home"
            )


@cache
def _known(migrations: Migrations) -> frozenset[str]:
    with closing(Database(memory=True)) as empty:
        return frozenset(m.name for m in migrations.pending(empty))


def connect(path: Path) -> Database:
    """A connection fit for several writing processes: WAL, foreign keys, and patience instead of `locked` errors."""
    connection = sqlite3.connect(str(path), timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute(f"pragma busy_timeout = {BUSY_SECONDS * 1000}")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        connection.execute("pragma foreign_keys = on")
    except sqlite3.Error:
        connection.close()
        raise
    # SQLite's own knows the letters of ASCII alone, which searches compare with what Python makes small.
    connection.create_function("lower", 1, _lower, deterministic=True)
    return Database(connection)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


@contextmanager
def write(db: Database) -> Iterator[Database]:
    """One transaction that takes the write lock at its start.

    A deferred transaction that reads first and writes later fails with "database is locked" when another process
    wrote in between, however long the timeout: so writers begin immediately. Inside another `write` it joins it.
    Raises NotAllowed where whoever acts may only look.
    """
    if db.conn.in_transaction:
        yield db
        return
    check_may_run()
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
