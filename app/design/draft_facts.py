"""The facts of a drafted relation, as rows [id, subject, object]: put in, typed over, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.design.facts_table import MAX_ROWS, Step
from engine.relation import Fact

# What facts have besides, by their ids. Drafts of before know nothing of some of it.
BESIDE = ("alternatives", "knew")


def set_facts(relation: dict[str, Any], facts: Sequence[Fact]) -> None:
    """Put these facts into the relation in place of its own."""
    relation |= {"facts": [], "alternatives": {}, "knew": {}, "problems": []}
    add_facts(relation, facts)


def add_facts(relation: dict[str, Any], facts: Sequence[Fact], place: int | None = None) -> list[int]:
    """Insert facts before the row at `place` (from 0; at the end without one); returns the ids that they got.

    No id of a row that was removed: another tab may still show that one, and send what is typed into it.
    """
    relation |= {"facts": typed_rows(relation), "options": []}
    place = len(relation["facts"]) if place is None else place
    free = max((relation.get("last_row", 0), *(row[0] for row in relation["facts"]))) + 1
    relation["last_row"] = free + len(facts) - 1
    rows: list[list[Any]] = []
    for i, fact in enumerate(facts, free):
        rows.append([i, fact.subject, fact.object])
        if fact.alternatives:
            relation["alternatives"][str(i)] = list(fact.alternatives)
        if fact.knew:
            relation.setdefault("knew", {})[str(i)] = fact.knew
    relation["facts"][place:place] = rows
    return [row[0] for row in rows]


def edit_rows(relation: dict[str, Any], steps: Sequence[Step], taken: int) -> None:
    """Apply the steps of the facts table that come after the one of number `taken`; rows are known by their numbers.

    A row that another tab removed comes back with the cells that were typed into it here.
    """
    before = relation["facts"]
    rows = {row[0]: row for row in before}
    for step in sorted((s for s in steps if s.number > taken), key=lambda s: s.number):
        for number, above, subject, object_ in step.cells:
            if number not in rows and len(rows) < MAX_ROWS:
                rows = _with_row(rows, number, above)
            if row := rows.get(number):
                rows[number] = [number, row[1] if subject is None else subject, row[2] if object_ is None else object_]
        for number in step.removed:
            rows.pop(number, None)
    relation["facts"] = list(rows.values())
    if relation["facts"] != before:
        relation["options"] = []
    kept = {str(number) for number in rows}
    for beside in BESIDE:
        relation[beside] = {i: value for i, value in relation.get(beside, {}).items() if i in kept}


def _with_row(rows: dict[int, list[Any]], number: int, above: int | None) -> dict[int, list[Any]]:
    """The rows with an empty one below the row `above`; at the end where that is gone, or none is named."""
    if above not in rows or above == next(reversed(rows)):
        rows[number] = [number, "", ""]
        return rows
    place = list(rows).index(above) + 1
    items = list(rows.items())
    return dict([*items[:place], (number, [number, "", ""]), *items[place:]])


def place_below(relation: dict[str, Any], row: int | None) -> int:
    """Where a row below this one goes (counted from 0): at the top for None, at the end where the row is gone."""
    numbers = [other[0] for other in relation["facts"]]
    return 0 if row is None else numbers.index(row) + 1 if row in numbers else len(numbers)


def typed_rows(relation: dict[str, Any]) -> list[list[Any]]:
    """The relation's own facts without the blank rows at the end."""
    rows = relation["facts"]
    end = len(rows)
    while end and not (rows[end - 1][1].strip() or rows[end - 1][2].strip()):
        end -= 1
    return rows[:end]


def fact_count(relation: dict[str, Any]) -> int:
    """How many facts the relation has, or will have."""
    if relation["facts_from"] == "own":
        return len(typed_rows(relation))
    return relation["generate"] if isinstance(relation["generate"], int) else 0
