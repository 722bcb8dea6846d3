"""What is damaged in a run's folder is set aside, never used and never deleted. Knows no torch."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from sqlite_utils import Database

from storage.answers import ANSWERS_NAME, open_answers
from storage.folders import damaged_folder
from storage.runs import add_event
from storage.trouble import is_damage

logger = logging.getLogger("engine")


def set_aside(path: Path, run_folder: Path) -> Path:
    """Move a file or folder of a run to where its damaged ones are kept; returns its new place. Raises OSError."""
    place = damaged_folder(run_folder)
    place.mkdir(parents=True, exist_ok=True)
    name = path.name.strip(".").removesuffix(".old")
    names = [name, *(f"{name}-{number}" for number in range(2, 10_000))]
    return path.rename(next(place / n for n in names if not os.path.lexists(place / n)))


def usable_answers(db: Database, folder: Path, run: str) -> Database:
    """The run's answers. A damaged file is set aside: what it held is asked again. Raises UnusableDatabase for one that
    is only in use, not to be written, or of a newer lab."""
    try:
        answers = open_answers(folder)
        if answers.conn.execute("pragma quick_check(1)").fetchone()[0] == "ok":
            return answers
        answers.close()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    place = folder / ANSWERS_NAME
    aside = set_aside(place, folder)
    for rest in ("-wal", "-shm"):
        place.with_name(place.name + rest).unlink(missing_ok=True)
    tell_damage(db, run, f"The answers of this run are damaged: they were moved to {aside}, and are asked again")
    return open_answers(folder)


def tell_damage(db: Database, run: str, sentence: str) -> None:
    """Say in a run's history, and in the log, what was found."""
    add_event(db, run, "damaged", sentence)
    logger.warning(sentence)
