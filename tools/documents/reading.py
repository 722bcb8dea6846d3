"""A Markdown document in parts: what is prose, what is code, where the links lead."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Code:
    """A fenced block, or a span of code inside a sentence (`inline`). `line` counts from 1."""

    line: int
    language: str
    text: str
    inline: bool = False


@dataclass(frozen=True)
class Document:
    """A document by its name relative to the project's root."""

    name: str
    text: str

    @property
    def size(self) -> int:
        """Bytes, as UTF-8."""
        return len(self.text.encode("utf-8"))

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @cached_property
    def blocks(self) -> list[Code]:
        """The fenced blocks."""
        return [
            Code((token.map or [0])[0] + 1, token.info.strip(), token.content)
            for token in self._tokens
            if token.type == "fence"
        ]

    @cached_property
    def spans(self) -> list[Code]:
        """Code inside sentences."""
        return [
            Code(line, "", child.content, inline=True)
            for line, child in self._children()
            if child.type == "code_inline"
        ]

    @cached_property
    def links(self) -> list[str]:
        """Where links and pictures lead, as written."""
        wanted = {"link_open": "href", "image": "src"}
        return [str(child.attrs[wanted[child.type]]) for _, child in self._children() if child.type in wanted]

    @cached_property
    def anchors(self) -> set[str]:
        """The names that GitHub gives the headings."""
        found: dict[str, int] = {}
        for token, following in pairwise(self._tokens):
            if token.type == "heading_open":
                words = "".join(child.content for child in following.children or ())
                slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
                found[slug] = found.get(slug, -1) + 1
        return {name for slug, last in found.items() for name in (slug, *(f"{slug}-{n}" for n in range(1, last + 1)))}

    def _children(self) -> list[tuple[int, Token]]:
        return [((token.map or [0])[0] + 1, child) for token in self._tokens for child in token.children or ()]


def tracked(root: Path = ROOT) -> list[Document]:
    """The Markdown documents that git knows, and new ones that it does not ignore."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [Document(name, (root / name).read_text(encoding="utf-8")) for name in listed if (root / name).exists()]
