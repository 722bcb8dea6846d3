"""The fuzzing targets that need no server, each with a few inputs: `python -m tests.fuzz` looks at many."""

from __future__ import annotations

import warnings

import pytest

from engine.description import ReadOtherwise
from tests.fuzz import descriptions, tables
from tests.fuzz.target import Target


@pytest.mark.parametrize("target", [*descriptions.TARGETS, *tables.TARGETS], ids=lambda target: target.name)
def test_it_is_read_as_written_or_refused_in_words(target: Target) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReadOtherwise)
        report = target.run(40, at=0)
    if report.fault:
        raise report.fault
    assert report.inputs >= 40
