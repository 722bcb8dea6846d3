"""Copies of a lab's database: whole while the lab runs, a part of it, and what becomes of one in another place."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from storage.database import BUSY_SECONDS, write
from storage.deletion import asked_now
from storage.runs import ENDED

# What a run, a study and an attack have of their own, each with whose it is, by which column; what others refer to
# comes first.
TABLES = {
    "attacks": ("attacks", "id"),
    "studies": ("studies", "id"),
    "runs": ("runs", "id"),
    "events": ("runs", "run"),
    "measurements": ("runs", "run"),
    "results": ("runs", "run"),
    "attack_results": ("runs", "run"),
    "study_groups": ("studies", "study"),
    "study_figures": ("studies", "study"),
}
EVENT = ("events", "id")  # numbered by each lab in its own order
# When two of one id are not the same.
DIFFER = {
    "runs": "here.created_at <> there.created_at",
    "studies": "here.created_at <> there.created_at or here.plan <> there.plan",
    "attacks": "here.created_at <> there.created_at or here.experiment <> there.experiment",
}


def copy_database(source: Path, target: Path) -> None:
    """Write a database as it is at one moment into a new file, also while others write to it. Raises sqlite3.Error."""
    address = f"{source.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as there,
        closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)
        here.execute("pragma journal_mode = delete")  # one file, without others beside it


def flaw_of(path: Path) -> str:
    """What is wrong with a database's file, in SQLite's words; '' when it can be read through."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = str(db.execute("pragma quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        found = str(error)
    return "" if found == "ok" else " ".join(found.split())


def forget_processes(db: Database) -> None:
    """In a copy of a lab: its workers, servers and holds are the other one's, and what they worked on waits again."""
    with write(db):
        for table in ("workers", "servers", "devices"):
            db.execute(f"delete from {table}")
        db.execute(
            "update runs set worker = null, lease_until = 0, state = case state when 'running' then 'queued' else state"
            " end where state in ('running', 'stopping')"
        )
        for table in ("asking_columns", "asking_alternatives"):
            db.execute(f"update {table} set state = 'waiting', lease_until = null where state = 'asking'")


@dataclass(frozen=True, slots=True)
class RunName:
    """A run, also one of an attack or a study: its id, what it is called, its state."""

    id: str
    name: str
    state: str


def list_all_runs(db: Database) -> list[RunName]:
    """Every run that there is, oldest first."""
    return [RunName(*row) for row in db.execute("select id, name, state from runs order by created_at, rowid")]


def runs_of(db: Database, name: str) -> list[str]:
    """The runs that a run, a study or an attack consists of, with those that an attack began from, oldest first.

    Raises KeyError when there is nothing of that id, ValueError while one of the runs has not ended, or is asked, and
    for a cell of an attack, which is nothing alone.
    """
    rows = db.query(
        "select id, state, attack from runs where :name in (id, study, attack)"
        " or id in (select needs from runs where attack = :name) order by created_at, rowid",
        {"name": name},
    )
    found = list(rows)
    if not found:
        raise KeyError(name)
    if (attack := found[0]["attack"]) and found[0]["id"] == name:
        raise ValueError(f"this run is a part of the attack {attack}: take that as a whole")
    runs = [row["id"] for row in found]
    if waiting := [row["id"] for row in found if row["state"] not in ENDED]:
        raise ValueError(f"{len(waiting)} of its runs have not ended ({waiting[0]}): wait for them, or cancel them")
    if reason := asked_now(db, runs):
        raise ValueError(reason)
    return runs


def keep_only(db: Database, name: str, runs: Collection[str]) -> None:
    """Take from a copy of a database everything but the run, study or attack of that id, and the runs that it has."""
    marks = ", ".join("?" * len(runs))
    with write(db):
        # Without its study a run is one like any other.
        db.execute(
            "update runs set study = null, cell = null, cell_place = null, needs = null"
            " where attack is null and study is not ?",
            [name],
        )
        db.execute(f"delete from runs where id not in ({marks})", list(runs))
        for table in ("studies", "attacks"):
            db.execute(f"delete from {table} where id is not ?", [name])
        for table in db.table_names():
            if table not in TABLES and not table.startswith("_"):
                db.execute(f"delete from {table}")
    db.vacuum()


@dataclass(frozen=True, slots=True)
class TakenIn:
    """Ids of runs of another lab: those that are new here, and those that were here before; those of new attacks."""

    new: list[str]
    known: list[str]
    attacks: list[str]


@contextmanager
def take_in(db: Database, other: Path) -> Iterator[TakenIn]:
    """Store what a database of the same version holds and this one has not; seen by others when the block ends well.

    Of a run, a study or an attack that is here nothing is added. Raises ValueError when something of the same id is
    here that is not the same.
    """
    db.attach("other", other)
    try:
        with write(db):
            for table, differ in DIFFER.items():
                both = f"select id from main.{table} here join other.{table} there using (id) where {differ}"
                if found := db.execute(both).fetchone():
                    raise ValueError(f"{found[0]} is here already, and differs from this one: delete it here first")
            new = {table: _only_there(db, table) for table in DIFFER}
            runs = [row[0] for row in db.execute("select id from other.runs order by created_at, rowid")]
            for table, (owners, column) in TABLES.items():
                columns = ", ".join(column.name for column in db.table(table).columns if (table, column.name) != EVENT)
                db.execute(
                    f"insert into main.{table} ({columns}) select {columns} from other.{table}"
                    f" where {column} in (select value from json_each(?))",
                    [json.dumps(new[owners])],
                )
            _join_studies(db, new["studies"])
            known = [run for run in runs if run not in new["runs"]]
            yield TakenIn([run for run in runs if run in new["runs"]], known, new["attacks"])
    finally:
        db.execute("detach database other")


def _only_there(db: Database, table: str) -> list[str]:
    return [row[0] for row in db.execute(f"select id from other.{table} where id not in (select id from main.{table})")]


def _join_studies(db: Database, studies: Collection[str]) -> None:
    """Runs that came alone before their study, or stayed when it was deleted, are parts of it again."""
    place = "study, cell, cell_place, needs"
    db.execute(
        f"update main.runs set ({place}) = (select {place} from other.runs there where there.id = main.runs.id)"
        " where study is null and attack is null"
        " and id in (select id from other.runs where study in (select value from json_each(?)))",
        [json.dumps(studies)],
    )
