"""What an import could not read as it stands: kept with the draft until it is mended or set aside by a click.

A problem in `relation["problems"]`: {"id", "file", "row", "fact", "was": [subject, object], "column", "severity",
"message"}. `row`: where it stands in the file; `fact`: the table's row that came of it, None for the file as a whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from app.design import draft as drafts
from app.design.draft_facts import BESIDE, add_facts, set_facts
from engine.checks import Problem
from engine.corpus.importing import ImportedFacts

# Mended by an edit of the row; the table has no other columns to edit.
_EDITABLE = (None, "subject", "object")


def take_facts(
    draft: drafts.Draft,
    here: dict[str, Any] | None,
    imported: ImportedFacts,
    name: str,
    place: int | None,
    replace: bool,
) -> None:
    """Put imported facts into the draft, and what is wrong with them.

    A file with a relation column goes to the relations of those names, which are added where there are none; any other
    to the relation `here`. Facts of `here` go to `place` (to the end without one).
    """
    by_row: dict[int | None, list[Problem]] = {None: list(imported.general)}
    for problem in imported.in_rows:
        by_row.setdefault(problem.row, []).append(problem)
    names = list(dict.fromkeys(imported.relations))
    for relation_name in names:
        mine = [i for i, of in enumerate(imported.relations) if of == relation_name]
        relation = drafts.relation_called(draft, relation_name) if relation_name or not here else here
        relation["facts_from"] = "own"
        if replace:
            set_facts(relation, ())
        facts = [imported.facts[i] for i in mine]
        numbers = add_facts(relation, facts, place if relation is here else None)
        found = [_stored(problem, name, None, ("", ""), imported.several) for problem in by_row.pop(None, ())]
        for i, number, fact in zip(mine, numbers, facts, strict=True):
            pair = (fact.subject, fact.object)
            own = by_row.get(imported.rows[i], ())
            found += [_stored(problem, name, number, pair, imported.several) for problem in own]
        relation["problems"] = [*relation.get("problems", ()), *found]


def _stored(problem: Problem, name: str, fact: int | None, was: Sequence[str], several: bool = False) -> dict[str, Any]:
    row = None if several else problem.row
    told = {"row": row, "column": problem.column, "severity": problem.severity, "message": problem.message}
    return {"id": secrets.token_hex(5), "file": name, "fact": fact, "was": list(was), **told}


def open_problems(relation: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are not mended: rows that were edited or removed since, in any tab, are."""
    rows = {row[0]: row[1:] for row in relation["facts"]}
    return [
        p
        for p in relation.get("problems", ())
        if p["fact"] is None or (p["fact"] in rows and (p["column"] not in _EDITABLE or rows[p["fact"]] == p["was"]))
    ]


def shown_problems(relation: dict[str, Any], origin: bool = False) -> list[Problem]:
    """The open ones by the rows of the table; with `origin`, each with its row of the file in words."""
    places = {row[0]: place for place, row in enumerate(relation["facts"], 1)}
    return [
        Problem(p["message"] + _origin(p) * origin, places.get(p["fact"]), p["column"], p["severity"])
        for p in open_problems(relation)
    ]


def _origin(problem: dict[str, Any]) -> str:
    source = f"‘{problem['file']}’" if problem["file"] else "what was pasted"
    return f" (row {problem['row']} of {source})" if problem["row"] else f" ({source})"


def keep_rows(relation: dict[str, Any]) -> None:
    """Set every open problem aside: the rows are meant as they are."""
    relation["problems"] = []


def leave_out_rows(relation: dict[str, Any]) -> int:
    """Remove the rows with an error; returns how many."""
    bad = {p["fact"] for p in open_problems(relation) if p["severity"] == "error"} - {None}
    relation["facts"] = [row for row in relation["facts"] if row[0] not in bad]
    for beside in BESIDE:
        relation[beside] = {i: x for i, x in relation.get(beside, {}).items() if int(i) not in bad}
    relation["problems"] = [p for p in relation.get("problems", ()) if p["fact"] not in bad]
    if bad:
        relation["options"] = []
    return len(bad)
