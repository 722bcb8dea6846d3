"""The terms under which a model came, kept with every folder that is made of it. Knows no torch.

copy_notices(source, folder)     # LICENSE, NOTICE and the like, where the source has them
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from engine.models.reading import MIB, inside_file
from engine.models.source import ModelError

# What is fetched of a model of the hub: the names that its terms mostly have.
TERMS = tuple(
    f"{name}{ending}"
    for name in ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY")
    for ending in ("", ".md", ".txt", ".html")
)
NOTICE = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY|[A-Z]+_TERMS)(\.(md|txt|html))?", re.IGNORECASE)
MOST_FILES = 20


def notices(folder: Path) -> list[Path]:
    """The ordinary files of a folder that name terms, at most 20 of at most 1 MiB."""
    found = []
    for path in sorted(path for path in folder.iterdir() if NOTICE.fullmatch(path.name))[:MOST_FILES]:
        try:
            if inside_file(folder, path.name) and path.stat().st_size <= MIB:
                found.append(path)
        except ModelError:
            continue
    return found


def copy_notices(source: str, folder: Path) -> None:
    """Copy the terms of a model's folder into one that is made of it. Raises OSError."""
    begin = Path(source)
    if source and begin.is_dir():
        for path in notices(begin):
            shutil.copyfile(path, folder / path.name)
