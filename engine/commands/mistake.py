"""What a person at the command line can mend, and what several commands share: options, files, the lab's home."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlite_utils import Database

from engine.description import MAX_FILE_BYTES, override, read_mapping
from engine.models.catalogue import use_home
from engine.presets import Kind, Presets
from storage.database import default_home, open_database
from storage.trouble import say_trouble

Home = Annotated[Path | None, typer.Option(help="Where the lab keeps its data (default: ~/.rote-lab).")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as `runs` lists it.")]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="ADDRESS", help="Carry out on a Ray cluster: ray://HOST:10001, or HOST:6379 within."),
]
Results = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Where to write the result rows.")]


class Mistake(Exception):
    """What the person can mend, in one line."""


@contextlib.contextmanager
def mistakes_in(what: object) -> Iterator[None]:
    """Say a ValueError of the block as a Mistake in `what`, such as the file that is read."""
    try:
        yield
    except ValueError as error:
        raise Mistake(f"{what}: {error}") from error


def read_text_file(path: Path) -> str:
    """The text of a file that a person named. Raises Mistake when it is too large or is not UTF-8."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Mistake(f"{path} is larger than {MAX_FILE_BYTES // 1_000_000} MB: split it up")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} cannot be read as UTF-8 text: {error}") from error


def read_description(presets: Presets[Kind], source: str, overrides: Sequence[str] | None) -> Kind:
    """What a preset or a file describes, with single settings (`path=value`) changed. Raises Mistake."""
    if source in presets.names():
        text = presets.text(source)
    elif os.path.isfile(source):  # noqa: PTH113 (False also for what is too long for a path)
        text = read_text_file(Path(source))
    else:
        raise Mistake(f"there is neither a preset nor a file ‘{source}’ (presets: {', '.join(presets.names())})")
    with mistakes_in(source):
        data = read_mapping(text, presets.kind.FIELD)
        for assignment in overrides or ():
            override(data, assignment)
        notes: list[str] = []
        made = presets.kind.from_data(data, notes)
    say_changes(source, notes)
    return made


def say_changes(source: object, notes: Sequence[str]) -> None:
    """Say on standard error what was read otherwise than it was written: results go to standard output."""
    for note in notes:
        typer.echo(f"{source}: {note}", err=True)


def open_home(home: Path | None) -> Database:
    """The database of a home folder, the usual one for None. Raises Mistake."""
    home = home or default_home()
    use_home(home)
    try:
        return open_database(home)
    except sqlite3.Error as error:
        raise Mistake(say_trouble(error)) from error
    except OSError as error:
        raise Mistake(f"{home} cannot be used as the lab's home: {error}") from error


def with_run(action: Callable[[Database], Any], run_id: str, home: Path | None) -> Any:
    """What `action(database)` gives. Raises Mistake when it finds no run of that id."""
    try:
        return action(open_home(home))
    except KeyError as error:
        raise Mistake(f"there is no run ‘{run_id}’ in {home or default_home()}") from error


def check_target(path: Path | None) -> None:
    """Raises Mistake when a file that is to be written later could not be: its folder is not there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise Mistake(f"the folder of {path} does not exist: make it first")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document where a person asked for it, whole or not at all. Raises Mistake."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error}") from error
