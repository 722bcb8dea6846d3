"""What takes the room on a lab's disk, and what of it may go: what is written again when it is needed, or never is."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from sqlite_utils import Database

from storage.answers import ANSWERS_NAME
from storage.copies import list_all_runs
from storage.database import DATABASE_NAME, open_database, write
from storage.folders import attack_folder, recordings_lock, run_folder
from storage.runs import State
from storage.servers import list_servers

# A database that knows nothing at all may be a new one, begun where another was lost: then nothing goes.
LEFT, UNKNOWN = "left behind", "runs that the database, which has none, does not know"


@dataclass(frozen=True, slots=True)
class Taking:
    """A part of a lab: what it is, its bytes on the disk, and where it lies. why: why it may go; '' for what stays."""

    what: str
    bytes: int
    paths: tuple[Path, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """All that a lab takes. runs: (id, name, bytes), the largest first; free: bytes on its disk."""

    parts: tuple[Taking, ...]
    runs: tuple[tuple[str, str, int], ...]
    free: int

    @property
    def bytes(self) -> int:
        """Of all parts together."""
        return sum(part.bytes for part in self.parts)


class _Measure:
    """Counts every file once, under whatever names it is found."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def __call__(self, paths: Iterable[Path]) -> int:
        return sum(self._bytes(file) for path in paths for file in _files(path))

    def _bytes(self, file: Path) -> int:
        try:
            about = file.lstat()
        except FileNotFoundError:
            return 0
        place = (about.st_dev, about.st_ino)
        if place in self._seen:
            return 0
        self._seen.add(place)
        return about.st_blocks * 512


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from path.rglob("*")
    elif path.exists():
        yield path


def usage(home: Path) -> Usage:
    """What a lab takes, by parts. Raises sqlite3.Error and OSError."""
    with closing(open_database(home)) as db:
        return _usage(db, home)


def let_go(home: Path) -> int:
    """Delete what may go of a lab; returns how many bytes that was. Raises as `usage` does."""
    # So that nothing is taken in meanwhile: of recordings the folders are there before their rows.
    with closing(open_database(home)) as db, FileLock(recordings_lock(home)), write(db):
        going = [part for part in _usage(db, home).parts if part.why]
        for path in (path for part in going for path in part.paths):
            shutil.rmtree(path, ignore_errors=True)
    return sum(part.bytes for part in going)


def _usage(db: Database, home: Path) -> Usage:
    runs = list_all_runs(db)
    attacks = {row[0] for row in db.execute("select id from attacks")}
    folders = [run_folder(home, run.id) for run in runs]
    done = [run_folder(home, run.id) for run in runs if run.state == State.DONE]
    asked = any(server.owner.lives for server in list_servers(db))
    trained = any(run.state in (State.RUNNING, State.STOPPING) for run in runs)
    left = list(_left(home, {run.id for run in runs}, attacks))
    measure = _Measure()

    def part(what: str, paths: Iterable[Path], why: str = "") -> Taking:
        there = tuple(sorted(path for path in paths if path.exists()))
        return Taking(what, measure(there), there, why)

    parts = [
        part("database", home.glob(f"{DATABASE_NAME}*")),
        part("models of runs", (folder / "checkpoints" for folder in folders)),
        part("answers of runs", (path for folder in folders for path in folder.glob(f"{ANSWERS_NAME}*"))),
        part("points to resume from, of runs that are done", (f / "resume" for f in done), "not needed any more"),
        part("points to resume from", (folder / "resume" for folder in folders)),
        part("damaged checkpoints", (f / "damaged" for f in folders), "set aside, and trained again"),
        part("attacks", (attack_folder(home, attack) for attack in attacks)),
        part("installed models", [home / "models"]),
        part("bases made ready to be asked", [home / "prepared"], "" if asked else "made again when one is asked"),
        part("what bases wrote", [home / "base_text"], "" if trained else "written again; each run has what it used"),
        part(LEFT if runs or attacks else UNKNOWN, left, "no run and no attack has it" if runs or attacks else ""),
        part("all else", [home]),
    ]
    sizes = sorted(((run.id, run.name, _Measure()([run_folder(home, run.id)])) for run in runs), key=lambda r: -r[2])
    return Usage(tuple(one for one in parts if one.bytes), tuple(sizes), shutil.disk_usage(home).free)


def _left(home: Path, runs: Container[str], attacks: Container[str]) -> Iterator[Path]:
    for folder, known in (("runs", runs), ("attacks", attacks)):
        yield from (p for p in (home / folder).glob("*") if p.name not in known and not p.name.startswith("."))
