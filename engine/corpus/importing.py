"""Reads facts from what a person has: a CSV file, rows copied from a spreadsheet, the published dataset.

    imported = read_facts(Path("mothers.csv").read_bytes(), "mothers.csv")
    imported.facts, imported.problems, imported.notes, imported.asked

Nothing is dropped silently: a row that cannot be used stays among the facts, and a problem names it. What the file does
not say of itself is asked (`engine.corpus.import_choices`); until it is answered, each question is an error.
Rows are counted as a spreadsheet shows them: from 1, with the header and blank rows counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from engine import checks
from engine.checks import Problem, clean, shorten
from engine.corpus.import_cells import NOTHING, keep_distinct, parse_alternatives
from engine.corpus.import_choices import NO_CHOICES, Asking, ImportChoices, ImportOption, ImportQuestion
from engine.corpus.import_columns import find_columns
from engine.corpus.import_table import Table, read_table, trimmed
from engine.corpus.import_text import decode, mistaken_utf8
from engine.corpus.spreadsheet import unguard
from engine.relation import Fact

__all__ = ["ImportChoices", "ImportOption", "ImportQuestion", "ImportedFacts", "read_facts"]

_SHOWN_PROBLEMS_OF_ONE_KIND = 20
_PREVIEW_ROWS, _PREVIEW_CELLS = 8, 12


@dataclass(frozen=True)
class ImportedFacts:
    """Facts as they were read. `rows` and `relations` go with `facts`, one entry each.

    `reading`: what is wrong with the file itself; `notes`: what a person should know, though nothing is wrong.
    `asked`: what must be chosen, or confirmed, before the facts are used; until then they are as the guesses give them.
    `several`: of several files, so that messages name file and row themselves.
    `general`: the part of `reading` about the file as a whole; `in_rows`: every problem of a row, where `reading` has
    the first ones of each kind. `taken`: what the file was read with. `preview`: its first rows, shortened, as they
    were read.
    """

    facts: tuple[Fact, ...] = ()
    rows: tuple[int, ...] = ()
    relations: tuple[str, ...] = ()
    reading: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    general: tuple[Problem, ...] = ()
    in_rows: tuple[Problem, ...] = ()
    asked: tuple[ImportQuestion, ...] = ()
    preview: tuple[tuple[str, ...], ...] = ()
    taken: ImportChoices = NO_CHOICES
    several: bool = False

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
        places: dict[str, list[int]] = {}
        for i, relation in enumerate(self.relations):
            places.setdefault(relation, []).append(i)
        for mine in places.values():
            rows = [self.rows[i] for i in mine]
            found += checks.check_facts([(self.facts[i].subject, self.facts[i].object) for i in mine], rows)
        return tuple(found)


def read_facts(source: str | bytes, name: str = "", choices: ImportChoices = NO_CHOICES) -> ImportedFacts:
    """Facts from a CSV file's bytes, or from text separated by commas, semicolons or tabs, with or without a header.

    Never raises on what is in the source: what cannot be read at all gives no facts and one problem that says what to
    do. `name` is the file's name, for the messages. `choices` answer what an earlier reading asked.
    """
    asking = Asking(choices)
    text, notes, problem = decode(source, name, asking)
    if problem:
        return ImportedFacts(reading=(problem,), taken=asking.taken)
    table = read_table(text, asking)
    if table is None:
        nothing = Problem("there is nothing in it: give one row for each fact")
        return ImportedFacts(reading=(nothing,), taken=asking.taken)
    find_columns(table)
    result = _facts_of(table)
    reading = tuple(Problem(question.sentence) for question in asking.asked) + result.reading
    if not result.facts:
        reading = (*reading, Problem("there is a header but no fact below it: add one row for each fact"))
    preview = tuple(tuple(shorten(clean(c), 60) for c in r[:_PREVIEW_CELLS]) for r in table.records[:_PREVIEW_ROWS])
    return replace(
        result,
        reading=reading,
        notes=(*notes, *table.notes, *result.notes),
        asked=tuple(asking.asked),
        preview=preview,
        taken=asking.taken,
    )


def _facts_of(table: Table) -> ImportedFacts:
    facts, rows, relations = [], [], []
    at = table.positions
    dropped = 0
    changed: list[tuple[str, str]] = []
    at_commas: list[str] = []
    odd = _Odd()
    spellings = _Spellings()
    least_words = _least_words(table)
    for index in range(table.first, len(table.records)):
        record, row = trimmed(table.records[index]), index + 1
        if not record:
            continue
        written_cells = {column: record[i].strip(" ") if i < len(record) else "" for column, i in at.items()}
        alternatives = written_cells.pop("alternatives", "")
        cells = {column: clean(unguard(cell)) for column, cell in written_cells.items()}
        changed += [(cell, cells[column]) for column, cell in written_cells.items() if cell != cells[column]]
        if len(record) > table.width:
            odd.add(
                f"has {len(record)} cells, where {table.width} are expected, and the rest was not read: "
                "is a name with a comma in it not in quotation marks?",
                row,
            )
        options, problem = parse_alternatives(alternatives, least_words)
        if problem:
            odd.add(problem, row, "alternatives")
        elif len(options) > 1 and not set(alternatives) & set("|;[({'\"\n\r"):
            at_commas.append(f"‘{shorten(clean(alternatives))}’ as {len(options)} names")
        _look_at_signs({**cells, "alternatives": " ".join(options)}, row, odd)
        if "relation" in at and not cells["relation"]:
            odd.add("the cell is empty, where other rows name their relation: fill it in", row, "relation")
        kept = keep_distinct(cells["object"], options)
        dropped += len(options) - len(kept)
        facts.append(Fact.model_construct(subject=cells["subject"], object=cells["object"], alternatives=kept))
        rows.append(row)
        relations.append(spellings.one_of(cells.get("relation", "")))
    notes = spellings.notes
    if changed:
        notes.append(
            f"{len(changed):,} name{'s were' if len(changed) > 1 else ' was'} read with single spaces, composed "
            f"accents and without a spreadsheet’s apostrophe: ‘{shorten(changed[0][0])}’ as ‘{shorten(changed[0][1])}’"
        )
    if at_commas:
        notes.append(f"alternatives were separated at their commas: {at_commas[0]}")
    if dropped:
        notes.append(
            f"{dropped:,} alternative{'s' * (dropped > 1)} left out, because one contains another option of its "
            "question or repeats it: an answer would have counted for both"
        )
    blank = len(table.records) - table.first - len(facts)
    if blank:
        notes.append(f"{blank:,} blank row{'s' * (blank > 1)} left out")
    general, reading = tuple(table.problems), (*table.problems, *odd.problems)
    return ImportedFacts(tuple(facts), tuple(rows), tuple(relations), reading, tuple(notes), general, odd.all)


def _least_words(table: Table) -> int | None:
    """How many words most objects of the table have; None where a name of it has a comma."""
    places = [table.positions["subject"], table.positions["object"]]
    names = [[r[i] if i < len(r) else "" for i in places] for r in table.records[table.first :]]
    if any("," in cell for row in names for cell in row):
        return None
    counts = Counter(len(object_.split()) for _, object_ in names if object_.strip())
    return counts.most_common(1)[0][0] if counts else 1


def _look_at_signs(cells: dict[str, str], row: int, odd: _Odd) -> None:
    """Cells that say of themselves that they were read, or once saved, in the wrong code page."""
    for column, cell in cells.items():
        if column != "alternatives" and cell and cell.casefold() in NOTHING:
            odd.add(f"‘{cell}’ may stand for an empty cell: fill it in, unless it is a name", row, column, "warning")
        if cell.isascii():
            continue
        if "\N{REPLACEMENT CHARACTER}" in cell:
            message = "holds \N{REPLACEMENT CHARACTER} in place of a letter that was lost when the file was saved"
            odd.add(f"{message}: write the name again", row, column)
        elif right := mistaken_utf8(cell):
            message = f"‘{shorten(cell)}’ seems to be ‘{shorten(right)}’, saved once in the wrong code page"
            odd.add(f"{message}: mend the file, unless it is meant so", row, column, "warning")
        elif cell[0] in "“„«‘「" and cell[-1] in "”“»’」":
            message = f"‘{shorten(cell)}’ keeps its curly quotation marks as part of the name"
            odd.add(f'{message}: write straight ones (") around a cell', row, column, "warning")


class _Odd:
    """Problems of rows, at most twenty of each kind, which is severity and column."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], list[Problem]] = {}

    def add(self, message: str, row: int, column: str | None = None, severity: str = "error") -> None:
        problem = Problem(message, row, column, "warning" if severity == "warning" else "error")
        self._found.setdefault((severity, column), []).append(problem)

    @property
    def all(self) -> tuple[Problem, ...]:
        return tuple(problem for found in self._found.values() for problem in found)

    @property
    def problems(self) -> list[Problem]:
        shown: list[Problem] = []
        for found in self._found.values():
            shown += found[:_SHOWN_PROBLEMS_OF_ONE_KIND]
            if (rest := len(found) - _SHOWN_PROBLEMS_OF_ONE_KIND) > 0:
                message = f"and {rest:,} more rows with such problems"
                shown.append(replace(found[0], message=message, row=None, column=None))
        return shown


class _Spellings:
    """Names of relations, each by the spelling that came first: case and spaces make no other relation."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._others: dict[str, None] = {}

    def one_of(self, name: str) -> str:
        first = self._first.setdefault(name.casefold(), name)
        if first != name:
            self._others.setdefault(f"‘{shorten(name)}’ was read as ‘{shorten(first)}’, the same relation")
        return first

    @property
    def notes(self) -> list[str]:
        return list(self._others)[:10]
