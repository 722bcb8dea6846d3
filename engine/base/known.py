"""What a base model knows before anybody trains it, as questions. Knows no torch until it must, for the page."""

from __future__ import annotations

import json
from functools import lru_cache

from engine.corpus.general import general_questions
from engine.models.source import resolve_source


@lru_cache(maxsize=8)
def known_questions(model: str) -> tuple[tuple[str, str], ...]:
    """(question, answer): of its own world where the lab made the base, else of what people commonly know."""
    folder = resolve_source(model)
    if isinstance(folder, str) or not (folder / "training.json").is_file():
        return general_questions()
    # Both load transformers, which the page must not.
    from engine.base.facts import own_questions
    from engine.base.world import World

    config = json.loads((folder / "training.json").read_text(encoding="utf-8"))["config"]
    return tuple((q.prompt, q.object) for q in own_questions(World(**config["world"])))
