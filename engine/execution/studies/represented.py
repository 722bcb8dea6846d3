"""How the runs of a study represent their prompts, as figures of the study: the last layer at the last token."""

from __future__ import annotations

from collections.abc import Iterator

from sqlite_utils import Database

from storage.representations import RepresentationFigure, list_representations

POSITION = "last"


def split_of(measure: str, prompts: str) -> str:
    """What a study calls such a figure in place of a split: `key_cosine test`, `delta_cosine natural`."""
    return f"{measure} {prompts}"


def represented(answers: Database) -> Iterator[RepresentationFigure]:
    """The figures with an interval of each checkpoint of a run, at its last layer and the last token."""
    found = list_representations(answers, position=POSITION)
    last = max((figure.layer for figure in found), default=0)
    return (figure for figure in found if figure.layer == last and figure.low is not None and figure.high is not None)
