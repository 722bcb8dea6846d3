"""What the runs of a study still know of what the base did, as figures of the study: what training made them forget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.corpus.general import GENERAL
from engine.corpus.general import SPLIT as GENERAL_KNOWLEDGE
from storage.measurements import Result

OF_NO_FACTS = "none"
BASE_TEXT = "base text"  # the rows' kind of prompt, as `engine.evaluation.base_text` has it
# The measures that are shares: of general questions that are answered, of the base's own tokens that are said too.
_SHARES = (GENERAL, "base_text_agreement")


def kept(rows: Iterable[Result]) -> Iterator[Result]:
    """Of a run's result rows those that say how much is still known."""
    return (row for row in rows if row.metric in _SHARES)


def is_kept(split: str) -> bool:
    """Whether a figure's split is one of these: about no facts, and about the same texts with every seed."""
    return split in (GENERAL_KNOWLEDGE, BASE_TEXT)
