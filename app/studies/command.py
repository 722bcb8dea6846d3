"""`rote-lab export study STUDY --to FILE`: what the page Studies offers to take away, without the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl

import typer

from app.shared.lab import Lab
from app.studies.exports import FORMS, written
from engine.commands.mistake import Home, Mistake, check_target, mistakes_in, open_home
from engine.models.folders import write_whole
from storage.database import default_home


def export_study(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study's or an attack's id.")],
    to: Annotated[Path, typer.Option(metavar="FILE", help=f"Its ending says the form: {', '.join(FORMS)}.")],
    view: Annotated[
        str, typer.Option(metavar="PARAMETERS", help='Of .html and .tex: as the page has it, "rows=model&measure=key".')
    ] = "",
    home: Home = None,
) -> None:
    """Write a study: all figures, a report in one file, a table, or its description."""
    check_target(to)
    open_home(home).close()
    lab = Lab(home or default_home())
    try:
        with mistakes_in(to):
            data = written(lab, study, to.suffix.lower(), dict(parse_qsl(view.lstrip("?"))))
    except KeyError as error:
        raise Mistake(f"there is no study ‘{study}’ in {lab.home}") from error
    try:
        write_whole(to, data)
    except OSError as error:
        raise Mistake(f"{to} cannot be written: {error}") from error
    typer.echo(f"{to}: {len(data):,} bytes")
