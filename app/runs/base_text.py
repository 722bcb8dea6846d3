"""The base's own text that a run replayed, or that its checkpoints were held against, as its folder keeps it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.folders import base_text_file

USES = {"stage1": "stage 1", "stage2": "stage 2", "held_out": "comparison"}
EXAMPLES = 12


@dataclass(frozen=True)
class UsedText:
    """One set of texts: `uses` in words, how many by language, `examples` (language, beginning, continuation) of all
    languages, and how many of the beginnings and of the texts were left out as too near to what is asked."""

    uses: tuple[str, ...]
    count: int
    languages: dict[str, int]
    examples: tuple[dict[str, Any], ...]
    beginnings_left_out: int
    texts_left_out: int


def used_texts(folder: Path) -> list[UsedText]:
    """The sets of the run in `folder`; none where it has no such texts, or none that can be read."""
    try:
        record = json.loads(base_text_file(folder).read_text(encoding="utf-8"))
        by_set: dict[str, list[str]] = {}
        for use, what in record["uses"].items():
            by_set.setdefault(what["set"], []).append(use)
        return [_used(record, key, uses) for key, uses in by_set.items()]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _used(record: dict[str, Any], key: str, uses: list[str]) -> UsedText:
    texts, what = record["sets"][key], record["uses"][uses[0]]
    languages = Counter(text["language"] for text in texts)
    each = -(-EXAMPLES // max(1, len(languages)))
    examples = []
    for language in languages:
        own = [text for text in texts if text["language"] == language]
        examples += own[:: -(-len(own) // each)]
    return UsedText(
        tuple(USES.get(use, use) for use in uses), what["used"], dict(languages), tuple(examples),
        what["beginnings_left_out"], what["asked"] - what["used"],
    )  # fmt: skip
