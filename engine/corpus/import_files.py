"""Facts from several files at once, such as the published dataset's, which has one for each relation.

imported = read_files([("mother.csv", data), ("author.csv", data)])     # facts of the relations mother and author

Which relation a file is about its own column says, where it has one, and else its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from engine.checks import Problem, clean, shorten
from engine.corpus.importing import ImportedFacts, read_facts
from engine.corpus.relations import load_relations

MOST_FILES = 50  # as many as an experiment has relations
_UNNAMEABLE = re.compile(r"[<>/\\\x00-\x1f]")


def relation_of(name: str) -> str:
    """The relation that a file's name names: one of the corpus when its name stands in it, else the name's stem."""
    stem = clean(_UNNAMEABLE.sub(" ", PurePath(name.replace("\\", "/")).stem))
    plain = re.sub(r"[\W_]+", "_", stem.casefold()).strip("_")
    known = [r for r in load_relations() if re.search(rf"(?:\A|_){re.escape(r)}(?:_|\Z)", plain)]
    return known[0] if len(known) == 1 else stem[:60].strip()


def read_files(files: Sequence[tuple[str, bytes]], relations: Sequence[str] = ()) -> ImportedFacts:
    """The facts of all files, each with its relation. relations: those of the first files, by which the file's own
    name is not asked.

    Never raises on what is in a file. Rows are counted in their own file, so messages name it. A file of which
    something must be asked is read as the guesses give it, with each question as an error.
    """
    if len(files) > MOST_FILES:
        message = (
            f"there are {len(files):,} files, more than the {MOST_FILES} relations of an experiment: leave some out"
        )
        return ImportedFacts(reading=(Problem(message),), general=(Problem(message),))
    found = ImportedFacts(several=True)
    rows_before = 0
    for place, (name, data) in enumerate(files):
        one = read_facts(data, name)
        own = relations[place] if place < len(relations) else relation_of(name)
        called = shorten(PurePath(name.replace("\\", "/")).name)

        def told(problems: Sequence[Problem], called: str = called, before: int = rows_before) -> tuple[Problem, ...]:
            """Rows of several files need numbers of their own, to be told apart."""
            return tuple(
                replace(
                    p,
                    message=f"‘{called}’{f', row {p.row}' if p.row else ''}: {p.message}",
                    row=p.row and p.row + before,
                )
                for p in problems
            )

        asked = tuple(Problem(f"{question.sentence}: import this file alone to answer") for question in one.asked)
        found = replace(
            found,
            facts=found.facts + one.facts,
            rows=found.rows + tuple(row + rows_before for row in one.rows),
            relations=found.relations + tuple(relation or own for relation in one.relations),
            reading=found.reading + told(one.reading if not one.asked else (*asked, *one.reading[len(one.asked) :])),
            notes=found.notes + tuple(f"‘{called}’: {note}" for note in one.notes),
            general=found.general + told((*asked, *one.general)),
            in_rows=found.in_rows + told(one.in_rows),
        )
        rows_before = max((rows_before, *found.rows)) + 1
    return found
