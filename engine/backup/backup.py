"""A backup of a lab, also while it runs, and the lab that is made of it again.

    back_up(home, Path("lab.tar"))            what the database had at one moment, and the files of its runs
    restore(Path("lab.tar"), new_home)

A run that was under way goes on, in the restored lab, from its newest point to resume from.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlite_utils import Database

from engine import __version__
from engine.backup.archive import Writer, new_archive, read_archive, read_head
from engine.exports.target import new_folder
from engine.models.checksums import CHECKSUMS, damage
from engine.models.folders import names_in, whole
from storage.answers import ANSWERS_NAME
from storage.copies import copy_database, flaw_of, forget_processes, list_all_runs
from storage.database import DATABASE_NAME, now, open_database
from storage.folders import run_folder
from storage.trouble import DamagedDatabase, NewerDatabase, is_damage

BACKUP, BUNDLE = "backup", "bundle"
DATABASE_BESIDE = ("-wal", "-shm", "-journal")  # SQLite's own files beside a database's
IN_RUNS = ("checkpoints", "resume")  # of a run's folders those whose folders are whole or not there

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What an archive holds. flaws: what was found damaged and is in it as it was found, a sentence each."""

    runs: int
    files: int
    bytes: int
    flaws: tuple[str, ...]


def back_up(home: Path, to: Path, *, models: bool = False, say: Say = lambda words: None) -> Written:
    """Write a lab's database, runs and attacks, and with `models` the models that it installed, into a new file.

    Raises ValueError when the file is there already, sqlite3.Error and OSError.
    """
    open_database(home).close()  # one that this version cannot use is refused; what others left is brought up to date
    with TemporaryDirectory(dir=to.absolute().parent, prefix=f".{to.name}.") as beside:
        copy = Path(beside) / DATABASE_NAME
        copy_database(home / DATABASE_NAME, copy)
        with closing(Database(copy)) as db:
            runs = [run.id for run in list_all_runs(db)]
        about = {"holds": BACKUP, "made_at": now(), "version": __version__, "runs": len(runs), "models": models}
        with new_archive(to, about) as archive:
            flaws = [f"the database is damaged ({flaw})"] if (flaw := flaw_of(copy)) else []
            archive.add(DATABASE_NAME, copy)
            for number, run in enumerate(runs, 1):
                say(f"run {number} of {len(runs)}")
                flaws += add_run(archive, home, run, Path(beside))
            for folder in ("attacks", "base_text", *(("models",) if models else ())):
                say(folder)
                flaws += add_tree(archive, home, folder)
        return Written(len(runs), len(archive.sums), to.stat().st_size, tuple(flaws))


def add_run(archive: Writer, home: Path, run: str, beside: Path) -> list[str]:
    """Add a run's folder, the checkpoints as they were written; returns what is damaged. `beside`: for copies.

    Of a run that is deleted meanwhile as much as was read. Raises OSError.
    """
    folder, flaws = run_folder(home, run), list[str]()
    for name in _names_in(folder):
        with suppress(FileNotFoundError):  # it went meanwhile: what else there is need not have
            flaws += _add_of_run(archive, run, folder / name, beside)
    return flaws


def _names_in(folder: Path) -> list[str]:
    try:
        return names_in(folder)
    except FileNotFoundError:
        return []


def _add_of_run(archive: Writer, run: str, path: Path, beside: Path) -> list[str]:
    flaws, name = list[str](), f"runs/{run}/{path.name}"
    if path.name == ANSWERS_NAME:
        if flaw := _add_answers(archive, name, path, beside / ANSWERS_NAME):
            flaws.append(f"the answers of run {run} are damaged ({flaw})")
    elif path.is_file() and not path.name.endswith(DATABASE_BESIDE):
        archive.add(name, path)
    elif path.name in IN_RUNS:
        for kept in _names_in(path):
            if flaw := archive.add_folder(f"{name}/{kept}", path / kept):
                flaws.append(f"{path.name}/{kept} of run {run} is damaged ({flaw})")
    return flaws


def _add_answers(archive: Writer, name: str, path: Path, copy: Path) -> str:
    """Add a run's answers as they are at one moment; returns what is wrong with them. Those that SQLite cannot read are
    added as they lie there.

    Raises FileNotFoundError when they are gone, sqlite3.Error where nothing is wrong with them, and OSError.
    """
    copy.unlink(missing_ok=True)
    try:
        copy_database(path, copy)
        flaw = flaw_of(copy)
    except sqlite3.DatabaseError as error:
        if path.exists() and not is_damage(error):
            raise  # such as a full disk
        flaw = " ".join(str(error).split())
        archive.add(name, path)
    else:
        archive.add(name, copy)
    return flaw


def add_tree(archive: Writer, home: Path, name: str) -> list[str]:
    """Add what lies below one of a lab's folders, if there is one; returns what is damaged. What is replaced as a whole
    is added as a whole, what goes meanwhile is left out. Raises OSError."""
    flaws: list[str] = []
    for inside in _names_in(home / name):
        path, unit = home / name / inside, f"{name}/{inside}"
        with suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                archive.add(unit, path)
            elif (found := whole(path)) and (found / CHECKSUMS).is_file():
                flaw = archive.add_folder(unit, path)
                flaws += [f"{unit} is damaged ({flaw})"] if flaw else []
            elif found and not found.is_symlink():
                flaws += add_tree(archive, home, unit)
    return flaws


def restore(path: Path, home: Path) -> dict[str, Any]:
    """Make a lab of a backup in a folder that is new or empty; returns what the archive says of itself.

    Raises ValueError for an archive that is damaged, or of a newer lab, which it names, and for a folder with something
    in it, sqlite3.Error and OSError. Then the folder is as it was.
    """
    head = read_head(path)
    if head.get("holds") != BACKUP:
        raise ValueError(f"{path} is no backup, but a bundle: `rote-lab bundle open` takes it in")
    check_room(path.stat().st_size, home)
    home.absolute().parent.mkdir(parents=True, exist_ok=True)
    with new_folder(home) as new:
        read_archive(path, new)
        with closing(open_inside(path, new)) as db:
            forget_processes(db)
    return head


def open_inside(path: Path, new: Path) -> Database:
    """The database that an archive had, which was read into a new folder. Raises ValueError, which names the archive,
    when this version of the lab cannot use it, and sqlite3.Error."""
    try:
        return open_database(new)
    except NewerDatabase as error:
        raise ValueError(f"{path} was written by a newer version of the lab: open it with that one") from error
    except DamagedDatabase as error:
        raise ValueError(f"{path} holds a damaged database: take another copy of it") from error


def check_room(needed: int, folder: Path) -> None:
    """Raises ValueError when a disk has not so many bytes for a folder, which need not be there yet."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if (free := shutil.disk_usage(there).free) < needed:
        raise ValueError(f"this needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free: make room")


def check_lab(home: Path, say: Say = lambda words: None) -> list[str]:
    """What is damaged in a lab: its database, the answers and models of its runs, a sentence each.

    Raises UnusableDatabase when the lab cannot be opened at all.
    """
    with closing(open_database(home)) as db:
        runs = [run.id for run in list_all_runs(db)]
    flaws = [f"the database is damaged ({flaw})"] if (flaw := flaw_of(home / DATABASE_NAME)) else []
    for number, run in enumerate(runs, 1):
        say(f"run {number} of {len(runs)}")
        folder = run_folder(home, run)
        if (folder / ANSWERS_NAME).is_file() and (flaw := flaw_of(folder / ANSWERS_NAME)):
            flaws.append(f"the answers of run {run} are damaged ({flaw}): `rote-lab retry {run}` asks again")
        for path in sorted(folder.glob("checkpoints/*")):
            if not path.name.startswith(".") and (flaw := damage(path)):
                flaws.append(
                    f"the checkpoint {path.name} of run {run} is damaged ({flaw}): `rote-lab retry {run}` sets it aside"
                    " and trains it again"
                )
    return flaws
