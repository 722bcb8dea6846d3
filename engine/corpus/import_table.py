"""A text as a table: the sign between its cells, found or asked."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Literal

from engine.checks import Problem, clean, shorten
from engine.corpus.import_choices import Asking, ImportOption
from engine.corpus.import_text import MAX_IMPORT_BYTES

DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar"}
# The published dataset QinyuanWu/T-Rex-Fiction names its columns Head, Fact, Alternate Facts, Text.
COLUMN_NAMES = {
    "subject": {"subject", "head"},
    "object": {"object", "fact", "tail"},
    "alternatives": {"alternatives", "alternate facts", "alternative facts", "options"},
    "relation": {"relation", "predicate"},
}
_SAMPLE_CHARACTERS = 100_000
_SAMPLE_RECORDS = 50
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(?P<sign>[^\r\n])"?[;,\t ]*(?:\r\n|\r|\n|$)', re.IGNORECASE)


@dataclass
class Table:
    """A file as records, and where its columns are. Positions count from 0; None where there is no such column."""

    records: list[list[str]]
    asking: Asking
    positions: dict[str, int] = field(default_factory=dict)
    width: int = 2
    first: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def usual_width(self) -> int:
        """How many cells most rows have, without the empty ones at their end."""
        return Counter(len(trimmed(r)) for r in self.records[self.first :] if trimmed(r)).most_common(1)[0][0]

    def quoted(self, row: int, most: int = 4) -> str:
        """The cells of a record in words."""
        cells = [f"‘{shorten(clean(cell))}’" for cell in trimmed(self.records[row])]
        return ", ".join(cells[:most]) + (", …" if len(cells) > most else "")


def trimmed(record: Sequence[str]) -> Sequence[str]:
    """The record without the empty cells at its end."""
    end = len(record)
    while end and not record[end - 1].strip():
        end -= 1
    return record[:end]


def read_table(text: str, asking: Asking) -> Table | None:
    """The text as records; None when no cell holds anything. Which columns they have, `find_columns` finds out."""
    csv.field_size_limit(MAX_IMPORT_BYTES * 2)
    notes: list[str] = []
    if line := _SEPARATOR_LINE.match(text):
        text = text[line.end() :]
        if asking.choices.delimiter is None:
            asking.choices = replace(asking.choices, delimiter=line["sign"])
        notes.append("the first line names the separator, and is not counted as a row, as in a spreadsheet")
    problems: list[Problem] = []
    chosen = asking.choices.delimiter
    if chosen is not None and (len(chosen) != 1 or chosen in '\r\n" '):
        problems.append(Problem(f"‘{shorten(chosen)}’ can’t separate columns: choose one sign, such as a semicolon"))
        asking.choices = replace(asking.choices, delimiter=None)
    records: list[list[str]] = []
    delimiter = _find_delimiter(text, csv.QUOTE_MINIMAL, asking)
    try:
        for record in csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True):
            records.append(record)
    except csv.Error:
        row = len(records) + 1
        message = "a quotation mark is not closed, or stands inside a cell: all of them were kept as part of the text"
        problems.append(Problem(message, row, severity="warning"))
        delimiter = _find_delimiter(text, csv.QUOTE_NONE, asking)
        records = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE))
    first = next((i for i, record in enumerate(records) if trimmed(record)), None)
    if first is None:
        return None
    asking.take(delimiter=delimiter)
    table = Table(records, asking, first=first, problems=problems, notes=notes)
    return table


def _find_delimiter(text: str, quoting: Literal[0, 3], asking: Asking) -> str:
    """The sign that splits most of the first rows into the same number of cells, at least two."""
    if asking.choices.delimiter is not None:
        return asking.choices.delimiter

    def records_by(delimiter: str) -> list[list[str]]:
        sample = StringIO(text[:_SAMPLE_CHARACTERS], newline="")
        reader = csv.reader(sample, delimiter=delimiter, quoting=quoting, skipinitialspace=quoting == csv.QUOTE_MINIMAL)
        return [record for _, record in zip(range(_SAMPLE_RECORDS), reader, strict=False) if record]

    samples = {delimiter: records_by(delimiter) for delimiter in DELIMITERS}
    agreement: dict[str, tuple[float, int]] = {}
    for delimiter, records in samples.items():
        widths = Counter(len(record) for record in records)
        split = {width: n for width, n in widths.items() if width > 1}
        agreement[delimiter] = (max(split.values(), default=0) / max(1, widths.total()), sum(split.values()))
    # A bar usually stands between alternatives: it separates columns only where nothing else does.
    if any(agreement[sign][0] > 0.5 for sign in "\t;,"):
        del agreement["|"]
    with_header = [d for d in agreement if any({"subject", "object"} <= set(roles_of(r)) for r in samples[d])]
    if len(with_header) == 1:
        return with_header[0]
    best = max(agreement, key=lambda delimiter: agreement[delimiter])
    rivals = [d for d in agreement if agreement[d][0] >= 0.9 and agreement[best][0] >= 0.9]
    if len(rivals) > 1 and not any(question.kind == "delimiter" for question in asking.asked):
        options = [
            ImportOption(
                DELIMITERS[d], d, replace(asking.choices, delimiter=d),
                " → ".join(shorten(clean(cell)) for cell in samples[d][-1][:4]),
            )
            for d in rivals
        ]  # fmt: skip
        named = " or the ".join(DELIMITERS[d] for d in rivals)
        asking.ask("delimiter", f"the {named} may stand between the columns: choose which one does", options, best)
    return best


def roles_of(record: Sequence[str]) -> dict[str, int]:
    """Which known column stands at which position of a header, from 0."""
    header = [clean(cell).casefold() for cell in record]
    places = {role: next((i for i, c in enumerate(header) if c in names), None) for role, names in COLUMN_NAMES.items()}
    return {role: place for role, place in places.items() if place is not None}
