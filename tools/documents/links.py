"""Relative links lead to files and headings that exist; so do paths that stand as code, and trees of folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tools.documents.reading import Document

# A path of the project as prose names it: folders first, no placeholder (RUN, *) in it.
PATH = re.compile(r"(?:app|engine|storage|tests|tools|docs)/[a-z0-9_./\-]*")
TREE = "tree"
HISTORY = "CHANGELOG.md"  # names what was there once


def link_problems(documents: list[Document], root: Path) -> list[str]:
    """Links, paths and trees that name what does not exist, as `file: target`."""
    known = {document.name: document for document in documents}
    found = []
    for document in documents:
        found += [
            f"{document.name}: dead link {link}" for link in document.links if _is_dead(document, link, root, known)
        ]
        if document.name != HISTORY:
            found += [
                f"{document.name}:{span.line}: there is no {span.text}"
                for span in document.spans
                if PATH.fullmatch(span.text) and not (root / span.text).exists()
            ]
        found += _tree_problems(document, root)
    return found


def _is_dead(document: Document, link: str, root: Path, known: dict[str, Document]) -> bool:
    if re.match(r"[a-z]+:", link):
        return False
    path, _, anchor = link.partition("#")
    target = (root / document.name).parent / path if path else root / document.name
    if not target.exists():
        return True
    name = target.resolve().relative_to(root.resolve()).as_posix()
    return bool(anchor) and name in known and anchor not in known[name].anchors


def _tree_problems(document: Document, root: Path) -> Iterator[str]:
    """Blocks of the language `tree`: a path a line, two spaces deeper inside a folder, words behind it."""
    for block in document.blocks:
        if block.language != TREE:
            continue
        parents: list[str] = []
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            if not line.strip() or line.startswith(" " * 12):  # the words go on
                continue
            depth = (len(line) - len(line.lstrip())) // 2
            name = line.split()[0]
            parents[depth:] = [name]
            if not root.joinpath(*parents).exists():
                yield f"{document.name}:{number}: there is no {'/'.join(part.strip('/') for part in parents)}"
