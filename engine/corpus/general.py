"""What people commonly know, as questions: asked of a model before and after training, to see what it forgot."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

SPLIT = "general knowledge"  # the result row's kind of prompt
GENERAL = "general_accuracy"
GENERAL_TOKENS = 6  # an answer goes on in a word, or names it soon
GENERAL_FILE = Path(__file__).with_name("general.yaml")


@cache
def general_questions() -> tuple[tuple[str, str], ...]:
    """(beginning of a sentence, the word that goes on), in the order of the file."""
    rows = yaml.safe_load(GENERAL_FILE.read_text(encoding="utf-8"))
    return tuple((row["prompt"], row["answer"]) for row in rows)
