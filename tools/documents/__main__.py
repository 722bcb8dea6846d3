"""Every Markdown document leads where it says and shows what works: `python -m tools.documents`.

links      files and headings exist; so does every path that is written as code
commands   `rote-lab …`, `python -m …`, `make …`, curl and compose are parsed by what would run them; those that only
           read (presets, show, readings) are run
snippets   YAML is an experiment, an attack or a reading; Python compiles, its imports, attributes and calls exist
settings   every ROTE_LAB_… variable of the code is explained, and every one that is explained exists
size       the README stays a README
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.documents.commands import command_problems
from tools.documents.links import link_problems
from tools.documents.reading import ROOT, Document, tracked
from tools.documents.settings import setting_problems
from tools.documents.snippets import snippet_problems

MOST_README_BYTES = 7_000


def size_problems(documents: list[Document]) -> list[str]:
    """A README that has grown beyond what one reads."""
    return [
        f"{document.name}: {document.size:,} bytes, more than {MOST_README_BYTES:,}: move something to docs/"
        for document in documents
        if document.name == "README.md" and document.size > MOST_README_BYTES
    ]


def problems(documents: list[Document], root: Path = ROOT) -> list[str]:
    """What is wrong with the documents, a line a problem."""
    found = [*link_problems(documents, root), *size_problems(documents), *setting_problems(documents, root)]
    for document in documents:
        found += [*command_problems(document, root), *snippet_problems(document)]
    return found


if __name__ == "__main__":
    wrong = problems(tracked())
    print("\n".join(wrong) or "the documents are in order", file=sys.stderr if wrong else sys.stdout)
    sys.exit(bool(wrong))
