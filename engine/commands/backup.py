"""python -m engine backup|verify|restore FILE, bundle make|open: a lab, or a part of it, as one file; and `disk`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from engine.backup.archive import read_archive, read_head
from engine.backup.backup import BACKUP, Written, back_up, check_lab, restore
from engine.backup.bundle import make_bundle, open_bundle
from engine.backup.disk import let_go, usage
from engine.commands.mistake import Home, Mistake, check_target, open_home
from engine.commands.program import program
from storage.database import DATABASE_NAME, default_home

Target = Annotated[Path, typer.Argument(metavar="FILE.tar", help="A file that is not there yet.")]
Source = Annotated[Path, typer.Argument(metavar="FILE.tar", help="What was written before.")]
LARGEST = 5


@contextmanager
def _mistakes() -> Iterator[Callable[[str], None]]:
    """Say a ValueError as a Mistake; yields what says on a terminal how far it is."""
    shown = sys.stderr.isatty()

    def say(words: str) -> None:
        if shown:
            print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)

    try:
        yield say
    except ValueError as error:
        raise Mistake(str(error)) from error
    finally:
        say("")


def _lab(home: Path | None) -> Path:
    """The home of a lab that is there: of a wrong name nothing is made. Raises Mistake."""
    folder = home or default_home()
    if not (folder / DATABASE_NAME).exists():
        raise Mistake(f"there is no lab in {folder}: name its folder with --home")
    open_home(home).close()
    return folder


def backup_command(
    to: Target,
    models: Annotated[bool, typer.Option("--models", help="With the models that the lab installed.")] = False,
    home: Home = None,
) -> None:
    """Write a lab into one file, also while it runs: its database, and the files of its runs and attacks."""
    folder = _lab(home)
    check_target(to)
    with _mistakes() as say:
        _tell(to, back_up(folder, to, models=models, say=say))
    if not models and (folder / "models").is_dir():
        typer.echo("note: installed models are not in it (--models)", err=True)


def _tell(to: Path, written: Written) -> None:
    for flaw in written.flaws:
        typer.echo(f"note: {flaw}; it is in {to} as it is", err=True)
    typer.echo(f"{to}: {written.runs:,} runs, {written.files:,} files, {_size(written.bytes)}")


def verify_command(
    source: Annotated[Path | None, typer.Argument(metavar="[FILE.tar]", help="By default the lab itself.")] = None,
    home: Home = None,
) -> None:
    """Read a backup or bundle through, or the lab itself, and say what is damaged. Exit code 2 when something is."""
    if source is None:
        folder = _lab(home)
        with _mistakes() as say:
            flaws = check_lab(folder, say)
        for flaw in flaws:
            typer.echo(flaw)
        if flaws:
            raise Mistake(f"{len(flaws)} of the lab's files are damaged")
        typer.echo(f"{folder}: the database, the answers and the models are as they were written")
        return
    with _mistakes():
        head, files = read_head(source), read_archive(source)
    what = "the lab" if head["holds"] == BACKUP else head["of"]
    about = f"{what} as of {head['made_at']}, {head['runs']:,} runs, {files:,} files"
    typer.echo(f"{source}: {about}, as they were written")


def restore_command(source: Source, home: Home = None) -> None:
    """Make a lab of a backup, in a folder that is new or empty."""
    folder = home or default_home()
    with _mistakes():
        head = restore(source, folder)
    typer.echo(f"{folder}: {head['runs']:,} runs, as of {head['made_at']}")
    if not head["models"]:
        typer.echo(f"note: models that were installed are not in it: `{program()} models list`", err=True)


bundle_app = typer.Typer(add_completion=False, help="Take a run, a study or an attack to another lab.")


@bundle_app.command("make")
def make_command(
    name: Annotated[str, typer.Argument(metavar="ID", help="Of a run, a study or an attack that has ended.")],
    to: Target,
    home: Home = None,
) -> None:
    """Write a run, study or attack into one file: its figures, answers and models."""
    folder = _lab(home)
    check_target(to)
    with _mistakes():
        try:
            _tell(to, make_bundle(folder, name, to))
        except KeyError as error:
            raise Mistake(f"there is no run, study or attack ‘{name}’ in {folder}") from error


@bundle_app.command("open")
def open_command(source: Source, home: Home = None) -> None:
    """Take what a bundle holds into the lab. What is there already stays as it is."""
    with _mistakes():
        taken = open_bundle(source, home or default_home())
    known = f", {len(taken.known):,} were here already" if taken.known else ""
    typer.echo(f"{len(taken.new):,} runs taken in{known}; their base: {', '.join(taken.models)}")


def disk_command(
    clean: Annotated[bool, typer.Option("--clean", help="Delete what may go.")] = False, home: Home = None
) -> None:
    """Say what takes the room on the disk, and what of it may go."""
    folder = _lab(home)
    found = usage(folder)
    for part in sorted(found.parts, key=lambda part: -part.bytes):
        typer.echo(f"{_size(part.bytes):>10}  {part.what}" + (f" (may go: {part.why})" if part.why else ""))
    typer.echo(f"{_size(found.bytes):>10}  together; {_size(found.free)} are free")
    for run, name, size in found.runs[:LARGEST]:
        if size:
            typer.echo(f"{_size(size):>10}  run {run} {name}")
    going = sum(part.bytes for part in found.parts if part.why)
    if clean:
        typer.echo(f"{_size(let_go(folder))} deleted")
    elif going:
        typer.echo(f"{_size(going)} may go: {program()} disk --clean")


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
