"""Recordings become runs of this lab: done, marked as recorded, without models.

restore_all(db, home)       # every `*.json.xz` beside this file that the lab has not taken in yet

A file is known by its name and its bytes: what someone deleted stays deleted, and a newer file of the same name takes
the older one's place. A damaged file is one sentence in the log; nothing of it is taken in.
"""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlite_utils import Database

from engine.evaluation.answer import Answer
from engine.experiment import Experiment
from engine.models.identity import Here, how_here
from storage.answers import ANSWER_COLUMNS, open_answers, store_answers, store_questions
from storage.checkpoints import KINDS, CheckpointName
from storage.database import now
from storage.folders import recordings_lock, run_folder
from storage.measurements import Result
from storage.recordings import PLAIN, replace_recording, taken_in
from storage.representations import FIGURE_FIELDS, RepresentationFigure, store_representations
from storage.runs import Run

logger = logging.getLogger("engine")

SHIPPED = Path(__file__).parent
ENDING = ".json.xz"
VERSION = 1
MOST_BYTES = 500_000_000
DAMAGE = (OSError, EOFError, lzma.LZMAError, sqlite3.Error, ValueError, LookupError, TypeError, AttributeError,
          ArithmeticError, RecursionError, MemoryError)  # fmt: skip


def restore_all(db: Database, home: Path, folder: Path = SHIPPED) -> list[str]:
    """Take in the recordings of a folder that are new; returns the names of those. Takes a second or so for each."""
    return [path.name.removesuffix(ENDING) for path in sorted(folder.glob(f"*{ENDING}")) if _taken(db, home, path)]


def _taken(db: Database, home: Path, path: Path) -> bool:
    try:
        return restore(db, home, path)
    except DAMAGE as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        logger.warning("The recording %s cannot be read and is left out (%s): install the lab again.", path, words)
        return False


def restore(db: Database, home: Path, path: Path) -> bool:
    """Take in one recording; False when the lab knew it. Raises one of `DAMAGE` for what cannot be read."""
    packed, name = path.read_bytes(), path.name.removesuffix(ENDING)
    digest = hashlib.sha256(packed).hexdigest()
    if taken_in(db, name) == digest:
        return False
    document = _read(packed)
    with FileLock(recordings_lock(home)):
        if taken_in(db, name) == digest:
            return False
        runs = [_row(run, document, name, digest, place) for place, run in enumerate(document["runs"])]
        # The answers first: a run that is there has them, however this ends.
        try:
            for run, row in zip(document["runs"], runs, strict=True):
                _put_answers(run_folder(home, row["id"]), document["questions"], run)
            former = replace_recording(db, name, digest, runs)
        except BaseException:
            _remove(home, [row["id"] for row in runs])
            raise
        _remove(home, former)
    return True


def here(run: Run) -> Here:
    """Whether the model of a recorded run is on this machine, with the weights it was recorded on or with others."""
    return how_here(str((run.recorded or {}).get("base")), Experiment.from_record(run.experiment))


def _read(packed: bytes) -> dict[str, Any]:
    unpacking = lzma.LZMADecompressor()
    text = unpacking.decompress(packed, max_length=MOST_BYTES)
    if not unpacking.eof:
        raise ValueError("it is cut off, or too large")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError("it is of another version of the lab")
    return document


def _row(run: dict[str, Any], document: dict[str, Any], name: str, digest: str, place: int) -> dict[str, Any]:
    """The run at a place of the recording, as storage/recordings.py takes it. Raises one of `DAMAGE`."""
    Experiment.from_record(run["experiment"])
    results: dict[str, list[dict[str, Any]]] = {}
    for row in run["rows"]:
        if CheckpointName.parse(row["checkpoint"]).kind not in KINDS:
            raise ValueError(f"no checkpoint is called {row['checkpoint']!r}")
        results.setdefault(row["checkpoint"], []).append(vars(Result(**row)))
    recorded = {
        "file": name, "hash": digest, "title": str(document["name"]), "run": str(run["id"]),
        "at": str(run["finished_at"]), "command": str(run["command"]), "base": str(run["base"]),
        "seconds": {str(part): float(value) for part, value in run["seconds"].items()},
    }  # fmt: skip
    brought = {"at": now(), "kind": "recorded", "message": f"Came with the lab, as the recording ‘{name}’"}
    return {
        **{field: run[field] for field in (*PLAIN, "experiment", "headline", "environment")},
        "id": hashlib.sha256(f"{digest}/{place}".encode()).hexdigest()[:8],
        "recorded": recorded,
        "events": [*({k: str(e[k]) for k in ("at", "kind", "message")} for e in run["events"]), brought],
        "measurements": [{"series": series, **point} for series, points in run["series"].items() for point in points],
        "results": results,
    }


def _put_answers(folder: Path, questions: list[dict[str, Any]], run: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with closing(open_answers(folder)) as db:
        store_questions(db, [questions[i] for i in run["facts"]], [questions[i] for i in run["prompts"]])
        for checkpoint, columns in run["answers"].items():
            rows = zip(*columns, strict=True)
            store_answers(db, checkpoint, [Answer(**dict(zip(ANSWER_COLUMNS, row, strict=True))) for row in rows])
        figures: dict[str, list[RepresentationFigure]] = {}
        for values in run.get("representations", []):
            figure = RepresentationFigure(**dict(zip(FIGURE_FIELDS, values, strict=True)))
            figures.setdefault(figure.checkpoint, []).append(figure)
        for checkpoint, shown in figures.items():
            store_representations(db, checkpoint, "", shown, (), {})


def _remove(home: Path, runs: list[str]) -> None:
    for run in runs:
        shutil.rmtree(run_folder(home, run), ignore_errors=True)
