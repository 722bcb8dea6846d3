"""The command line as a whole: what it is called and which version it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine import __version__


def program() -> str:
    """How the person calls the command line: the package's script, or the module in a checkout."""
    return "rote-lab" if Path(sys.argv[0]).stem == "rote-lab" else "python -m engine"


def as_called(command: str) -> str:
    """A command that was written down as `python -m engine …`, as the person calls it."""
    return command.replace("python -m engine", program())


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rote-lab {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Exit code 0 only on success; a user's mistake is one line on standard error and exit code 2."""
