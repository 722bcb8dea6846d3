"""What a person at the command line can mend, and the options that several commands share."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.description import MAX_FILE_BYTES
from storage.database import open_database

Home = Annotated[Path | None, typer.Option(help="Where the lab keeps its data (default: ~/.rote-lab).")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as `runs` lists it.")]


class Mistake(Exception):
    """What the person can mend, in one line."""


def read_text_file(path: Path) -> str:
    """The text of a file that a person named. Raises Mistake when it is too large or is not UTF-8."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Mistake(f"{path} is larger than {MAX_FILE_BYTES // 1_000_000} MB: split it up")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} cannot be read as UTF-8 text: {error}") from error


def open_home(home: Path) -> Any:
    """The database of a home folder. Raises Mistake."""
    try:
        return open_database(home)
    except (OSError, sqlite3.Error) as error:
        raise Mistake(f"{home} cannot be used as the lab's home: {error}") from error


def with_run(action: Callable[[Any], Any], run_id: str, home: Path) -> Any:
    """What `action(database)` gives. Raises Mistake when it finds no run of that id."""
    try:
        return action(open_home(home))
    except KeyError as error:
        raise Mistake(f"there is no run ‘{run_id}’ in {home}") from error


def read_source(source: str, presets: Sequence[str]) -> str:
    """The text of the file that a person named instead of a preset. Raises Mistake."""
    path = Path(source)
    if not path.is_file():
        raise Mistake(f"there is neither a preset nor a file ‘{source}’ (presets: {', '.join(presets)})")
    return read_text_file(path)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document where a person asked for it, whole or not at all. Raises Mistake."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error}") from error
