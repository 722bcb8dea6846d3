"""One run, study or attack as one file, with its figures, answers and models, and the lab that takes it in.

    make_bundle(home, "3f9a1c2e", Path("run.tar"))
    open_bundle(Path("run.tar"), other_home)

What was asked on the page Ask stays behind, and so does the base model, where the run only names it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlite_utils import Database

from engine import __version__
from engine.backup.archive import new_archive, read_archive, read_head
from engine.backup.backup import BUNDLE, Written, add_run, add_tree, check_room, open_inside
from storage.copies import copy_database, keep_only, runs_of, take_in
from storage.database import DATABASE_NAME, now, open_database
from storage.folders import attack_folder, run_folder


@dataclass(frozen=True, slots=True)
class Taken:
    """What a bundle brought. new, known: ids of runs, of those that were here before; models: which they name."""

    new: tuple[str, ...]
    known: tuple[str, ...]
    models: tuple[str, ...]


def make_bundle(home: Path, name: str, to: Path) -> Written:
    """Write the run, study or attack of that id into a new file.

    Raises KeyError when there is none, ValueError while a run of it has not ended, or when the file is there already,
    sqlite3.Error and OSError.
    """
    open_database(home).close()
    with TemporaryDirectory(dir=to.absolute().parent, prefix=f".{to.name}.") as beside:
        copy = Path(beside) / DATABASE_NAME
        copy_database(home / DATABASE_NAME, copy)
        with closing(Database(copy)) as db:
            db.execute("pragma foreign_keys = on")
            runs = runs_of(db, name)  # as they are in the copy, whatever is deleted or queued again meanwhile
            keep_only(db, name, runs)
        about = {"holds": BUNDLE, "of": name, "made_at": now(), "version": __version__, "runs": len(runs)}
        flaws: list[str] = []
        with new_archive(to, about) as archive:
            archive.add(DATABASE_NAME, copy)
            for run in runs:
                flaws += add_run(archive, home, run, Path(beside))
            flaws += add_tree(archive, home, f"attacks/{name}")
    return Written(len(runs), len(archive.sums), to.stat().st_size, tuple(flaws))


def open_bundle(path: Path, home: Path) -> Taken:
    """Take what a bundle holds into a lab. What is here already stays as it is.

    Raises ValueError for a bundle that is damaged, or of a newer lab, which it names, and when something of the same id
    is here that is not the same, sqlite3.Error and OSError. Then nothing was taken in.
    """
    head = read_head(path)
    if head.get("holds") != BUNDLE:
        raise ValueError(f"{path} is no bundle, but the backup of a whole lab: `rote-lab restore` makes a lab of it")
    check_room(path.stat().st_size, home)
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=home, prefix=".bundle.") as name, closing(open_database(home)) as db:
        new = Path(name)
        read_archive(path, new)
        with closing(open_inside(path, new)) as other:
            models = tuple(row[0] for row in other.execute("select distinct model from runs order by model"))
            other.execute("pragma journal_mode = delete")
        with _held_together(path), take_in(db, new / DATABASE_NAME) as taken:
            # Under the lock of the database, and before its rows are seen: no worker meets a run without its files.
            for run in taken.new:
                _move(run_folder(new, run), run_folder(home, run))
            for attack in taken.attacks:
                _move(attack_folder(new, attack), attack_folder(home, attack))
    return Taken(tuple(taken.new), tuple(taken.known), models)


@contextmanager
def _held_together(path: Path) -> Iterator[None]:
    """Rows that the tables here do not take are the bundle's fault, not this lab's."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ValueError(f"{path} is no sound bundle ({error}): have it made again") from error


def _move(source: Path, target: Path) -> None:
    """Nothing in the lab knows the target: what lies there was left by what was deleted, or was cut off here."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
