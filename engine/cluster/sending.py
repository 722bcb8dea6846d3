"""What a run writes on a machine of a cluster, as parts for the lab that owns it: each new version of a file, once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.cluster.parts import Part, parts_of, version_of
from engine.models.checksums import CHECKSUMS
from storage.answers import ANSWERS_NAME
from storage.copies import copy_database
from storage.folders import attack_folder, run_folder

# What a run's folder holds, but for its log and its answers, which grow.
FILES = ("base_text.json", "run.json")
FOLDERS = ("checkpoints", "resume")
LOG_BYTES = 1 << 20
NEWS_BYTES = 16 << 20
COPY = "answers-to-send.db"


class Sending:
    """Finds what is new. What is there when it is made came from the lab that owns the run, and need not go back."""

    def __init__(self, home: Path, run: str, attack: str | None) -> None:
        self.home, self.folder = home, run_folder(home, run)
        self._starts = attack_folder(home, attack) if attack else None
        self._sent: dict[str, Any] = {unit: version_of(home / unit) for unit in self._units()}
        self._answered = self._signs_of_answers()
        # A checkpoint that is taken over from another run is there already where the run is owned.
        self._theirs = {
            sums: unit
            for folder in (home / "runs").glob("*/checkpoints/*")
            if folder.parents[1] != self.folder and (sums := _sums(folder))
            for unit in [folder.relative_to(home).as_posix()]
        }
        self._read = 0
        self._parts: Iterator[Part] = iter(())

    def log(self) -> bytes:
        """What the log got since it was read last."""
        try:
            with (self.folder / "log.txt").open("rb") as file:
                file.seek(self._read)
                text = file.read(LOG_BYTES)
        except OSError:
            return b""
        self._read += len(text)
        return text

    def parts(self) -> list[Part]:
        """The next parts, some megabytes of them; none when all was sent."""
        found: list[Part] = []
        size = 0
        while size < NEWS_BYTES:
            part = next(self._parts, None)
            if part is None:
                unit = self._new()
                if unit is None:
                    break
                self._parts = self._begin(unit)
                continue
            found.append(part)
            size += len(part.get("data", b""))
        return found

    def _begin(self, unit: str) -> Iterator[Part]:
        place = self.home / unit
        if place == self.folder / ANSWERS_NAME:
            return self._copy_of_answers(unit)
        if place.is_dir() and (theirs := self._theirs.get(_sums(place))):
            return iter([{"unit": unit, "same_as": theirs}])
        return parts_of(self.home, unit)

    def _copy_of_answers(self, unit: str) -> Iterator[Part]:
        copy = self.home / COPY
        copy.unlink(missing_ok=True)
        copy_database(self.home / unit, copy)
        for part in parts_of(self.home, COPY):
            yield part | {"unit": unit}
        copy.unlink()

    def _new(self) -> str | None:
        """A unit of which there is another version than the one that was sent."""
        for unit in self._units():
            version = version_of(self.home / unit)
            if version is not None and version != self._sent.get(unit):
                self._sent[unit] = version
                return unit
        signs = self._signs_of_answers()
        if signs != self._answered:
            self._answered = signs
            return (self.folder / ANSWERS_NAME).relative_to(self.home).as_posix()
        return None

    def _units(self) -> Iterator[str]:
        for name in FILES:
            if (self.folder / name).is_file():
                yield (self.folder / name).relative_to(self.home).as_posix()
        for parent in [*(self.folder / name for name in FOLDERS), *([self._starts] if self._starts else [])]:
            if parent.is_dir():
                yield from sorted(
                    place.relative_to(self.home).as_posix()
                    for place in parent.iterdir()
                    if place.is_dir() and not place.name.startswith(".")
                )

    def _signs_of_answers(self) -> Any:
        """What changes when a checkpoint's answers, or its hidden states, are there. Only SQLite may open the file."""
        path = self.folder / ANSWERS_NAME
        if not path.is_file():
            return None
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as db:
                asked = "select checkpoint, 'asked' from evaluated"
                looked_at = "select checkpoint, 'looked at' from represented"
                return db.execute(f"{asked} union all {looked_at} order by 1, 2").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return None


def _sums(folder: Path) -> str:
    """What stands for all files of a checkpoint; '' where it has no checksums."""
    try:
        return hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()
    except OSError:
        return ""
