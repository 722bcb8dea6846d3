"""Environment variables: what the code reads is explained in docs/models.md, and what documents name is read."""

from __future__ import annotations

import re
from pathlib import Path

from tools.documents.reading import Document

VARIABLE = re.compile(r"ROTE_LAB_[A-Z_]*[A-Z]")
EXPLAINED_IN = "docs/models.md"
READERS = ("app", "engine", "storage")
FILES = ("Makefile", "Dockerfile", "compose.yaml")


def setting_problems(documents: list[Document], root: Path) -> list[str]:
    """Variables that are read and not explained, or named and never read."""
    read = {name for path in _sources(root) for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    named = {document.name: set(VARIABLE.findall(document.text)) for document in documents}
    unexplained = read - named.get(EXPLAINED_IN, set())
    found = [f"{EXPLAINED_IN}: does not explain {variable}" for variable in sorted(unexplained)]
    return found + [
        f"{name}: nothing reads {variable}"
        for name, variables in named.items()
        for variable in sorted(variables - read)
    ]


def _sources(root: Path) -> list[Path]:
    code = [path for folder in READERS for path in (root / folder).rglob("*.py")]
    return code + [root / name for name in FILES if (root / name).exists()]
