"""Reads facts from what a person has: a CSV file, rows copied from a spreadsheet, the published dataset.

    imported = read_facts(Path("mothers.csv").read_bytes(), "mothers.csv")
    imported.facts, imported.problems, imported.notes

Nothing is dropped silently: a row that cannot be used stays among the facts, and a problem names it.
Rows are counted as a spreadsheet shows them: from 1, with the header and blank rows counted.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Literal

from engine import checks
from engine.checks import Problem, shorten
from engine.corpus.import_cells import clean, keep_distinct, parse_alternatives
from engine.corpus.import_text import MAX_IMPORT_BYTES, decode
from engine.experiment import Fact

DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma"}
# The published dataset QinyuanWu/T-Rex-Fiction names its columns Head, Fact, Alternate Facts, Text.
COLUMN_NAMES = {
    "subject": {"subject", "head"},
    "object": {"object", "fact", "tail"},
    "alternatives": {"alternatives", "alternate facts", "alternative facts", "options"},
    "relation": {"relation", "predicate"},
}
_SAMPLE_CHARACTERS = 100_000
_SAMPLE_RECORDS = 50
_SHOWN_PROBLEMS_OF_ONE_KIND = 20


@dataclass(frozen=True)
class ImportedFacts:
    """Facts as they were read. `rows` and `relations` go with `facts`, one entry each.

    `reading`: what is wrong with the file itself; `notes`: what a person should know, though nothing is wrong.
    """

    facts: tuple[Fact, ...] = ()
    rows: tuple[int, ...] = ()
    relations: tuple[str, ...] = ()
    reading: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def by_relation(self) -> dict[str, tuple[Fact, ...]]:
        """The facts grouped by the file's relation column; the key is empty where it has none."""
        groups: dict[str, list[Fact]] = {}
        for fact, relation in zip(self.facts, self.relations, strict=True):
            groups.setdefault(relation, []).append(fact)
        return {name: tuple(facts) for name, facts in groups.items()}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong, by the file's rows: `reading`, then the checks of each relation's facts."""
        if not self.facts:
            return self.reading
        found = list(self.reading)
        for relation in dict.fromkeys(self.relations):
            mine = [i for i, name in enumerate(self.relations) if name == relation]
            rows = [self.rows[i] for i in mine]
            found += checks.check_facts([(self.facts[i].subject, self.facts[i].object) for i in mine], rows)
        return tuple(found)


@dataclass
class _Table:
    """A file as records, and where its columns are. Positions count from 0; None where there is no such column."""

    records: list[list[str]]
    positions: dict[str, int]
    width: int
    first: int
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_facts(source: str | bytes, name: str = "") -> ImportedFacts:
    """Facts from a CSV file's bytes, or from text separated by commas, semicolons or tabs, with or without a header.

    Never raises on what is in the source: what cannot be read at all gives no facts and one problem that says what to
    do. `name` is the file's name, for the messages.
    """
    text, notes, problem = decode(source, name)
    if problem:
        return ImportedFacts(reading=(problem,))
    table = _read_table(text, is_file=isinstance(source, bytes))
    if table is None:
        return ImportedFacts(reading=(Problem("there is nothing in it: give one row for each fact"),))
    result = _facts_of(table)
    if not result.facts:
        message = "there is a header but no fact below it: add one row for each fact"
        return ImportedFacts(reading=(*result.reading, Problem(message)), notes=(*notes, *result.notes))
    return ImportedFacts(result.facts, result.rows, result.relations, result.reading, (*notes, *result.notes))


def _read_table(text: str, is_file: bool) -> _Table | None:
    """The text as a table; None when no cell of it holds anything."""
    csv.field_size_limit(MAX_IMPORT_BYTES * 2)
    delimiter = _find_delimiter(text, csv.QUOTE_MINIMAL)
    problems: list[Problem] = []
    records: list[list[str]] = []
    try:
        for record in csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True):
            records.append(record)
    except csv.Error:
        row = len(records) + 1
        message = "a quotation mark is not closed, or stands inside a cell: all of them were kept as part of the text"
        problems.append(Problem(message, row, severity="warning"))
        delimiter = _find_delimiter(text, csv.QUOTE_NONE)
        records = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE))
    first = next((i for i, record in enumerate(records) if any(cell.strip() for cell in record)), None)
    if first is None:
        return None
    table = _Table(records, {}, 2, first, problems)
    has_header = _find_columns(table)
    if is_file and not has_header and not table.problems:
        table.notes.append(
            f"no header with ‘subject’ and ‘object’, so row {first + 1} was read as a fact, and "
            f"the {DELIMITERS[delimiter]} as the sign between subject and object"
        )
    return table


def _find_delimiter(text: str, quoting: Literal[0, 3]) -> str:
    """The sign that splits most of the first rows into the same number of cells, at least two."""

    def agreement(delimiter: str) -> tuple[float, int]:
        widths: Counter[int] = Counter()
        sample = StringIO(text[:_SAMPLE_CHARACTERS], newline="")
        for i, record in enumerate(csv.reader(sample, delimiter=delimiter, quoting=quoting)):
            if i == _SAMPLE_RECORDS:
                break
            if record:
                widths[len(record)] += 1
        split = sum(n for width, n in widths.items() if width > 1)
        most = max((n for width, n in widths.items() if width > 1), default=0)
        return (most / max(1, widths.total()), split)

    return max(DELIMITERS, key=agreement)


def _find_columns(table: _Table) -> bool:
    """Fill in `positions`, `width` and `first` (the first record below the header); whether there is a header."""
    header = [clean(cell).casefold() for cell in table.records[table.first]]
    for column, names in COLUMN_NAMES.items():
        place = next((i for i, cell in enumerate(header) if cell in names), None)
        if place is not None:
            table.positions[column] = place
    has_subject, has_object = "subject" in table.positions, "object" in table.positions
    if has_subject or has_object:
        table.width = len(header)
        if not (has_subject and has_object):
            _complete_header(table, header)
        unused = [c for i, c in enumerate(header) if c and i not in table.positions.values() and c != "text"]
        if unused:
            table.notes.append("columns that are not used: " + ", ".join(f"‘{shorten(c)}’" for c in unused[:10]))
        table.first += 1
        return True
    table.positions = {"subject": 0, "object": 1}
    widths = Counter(len(_trimmed(r)) for r in table.records if r)
    usual = widths.most_common(1)[0][0]
    row = table.first + 1
    if usual > 2:
        message = (
            f"there are {usual} columns but no header, so only the first two were read: "
            "write ‘subject’ and ‘object’ (and ‘relation’) above the columns"
        )
        table.problems.append(Problem(message, row))
        table.width = usual
    elif usual < 2:
        message = "only one column was found: put a comma, semicolon or tab between subject and object"
        table.problems.append(Problem(message))
    return False


def _complete_header(table: _Table, header: Sequence[str]) -> None:
    """A header that names only one of the two columns: take the first free column as the other, and say so."""
    missing, known = ("object", "subject") if "subject" in table.positions else ("subject", "object")
    free = [i for i in range(max(2, len(header))) if i not in table.positions.values()]
    table.positions[missing] = free[0]
    called = f"‘{shorten(header[free[0]])}’" if free[0] < len(header) else f"column {free[0] + 1}"
    table.notes.append(f"the header has ‘{known}’ but no ‘{missing}’: {called} was read as the {missing}")


def _trimmed(record: Sequence[str]) -> Sequence[str]:
    end = len(record)
    while end and not record[end - 1].strip():
        end -= 1
    return record[:end]


def _facts_of(table: _Table) -> ImportedFacts:
    facts, rows, relations = [], [], []
    at = table.positions
    dropped = 0
    odd: list[Problem] = []
    for index in range(table.first, len(table.records)):
        record, row = _trimmed(table.records[index]), index + 1
        if not record:
            continue
        cells = {column: clean(record[i]) if i < len(record) else "" for column, i in at.items()}
        if len(record) > table.width:
            message = (
                f"has {len(record)} cells, where {table.width} are expected, and the rest was not read: "
                "is a name with a comma in it not in quotation marks?"
            )
            odd.append(Problem(message, row))
        options, problem = parse_alternatives(record[at["alternatives"]]) if _has(at, record) else ((), None)
        if problem:
            odd.append(Problem(problem, row, "alternatives"))
        kept = keep_distinct(cells["object"], options)
        dropped += len(options) - len(kept)
        facts.append(Fact.model_construct(subject=cells["subject"], object=cells["object"], alternatives=kept))
        rows.append(row)
        relations.append(cells.get("relation", ""))
    if dropped:
        table.notes.append(
            f"{dropped:,} alternative{'s' * (dropped > 1)} left out, because one contains another option of its "
            "question or repeats it: an answer would have counted for both"
        )
    blank = len(table.records) - table.first - len(facts)
    if blank:
        table.notes.append(f"{blank:,} blank row{'s' * (blank > 1)} left out")
    return ImportedFacts(
        tuple(facts), tuple(rows), tuple(relations), (*table.problems, *_at_most(odd)), tuple(table.notes)
    )


def _has(positions: dict[str, int], record: Sequence[str]) -> bool:
    return "alternatives" in positions and positions["alternatives"] < len(record)


def _at_most(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= _SHOWN_PROBLEMS_OF_ONE_KIND:
        return problems
    rest = len(problems) - _SHOWN_PROBLEMS_OF_ONE_KIND
    return [*problems[:_SHOWN_PROBLEMS_OF_ONE_KIND], Problem(f"and {rest:,} more rows with such problems")]
