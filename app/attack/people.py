"""The stored answers behind the Attack page: one person before and after, and every answer that a number is made of."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.attack.figures import Measured
from app.attack.view import PAGE_ROWS, Place
from app.shared.lab import Lab
from engine.attack.defences import defences
from engine.attack.experiment import NO_DEFENCE
from storage.answer_search import Answer, Wanted, find_answers, iterate_answers
from storage.answers import list_facts
from storage.attacks import AttackCell
from storage.runs import State

Row = dict[str, Any]
ASKED = ("prompt", "reading", "split", "before", "after", "subject", "object", "text")


@dataclass(frozen=True)
class Column:
    """One model whose answers stand beside the others': `name` base, before, after or defended."""

    name: str
    label: str
    cell: AttackCell

    @property
    def checkpoint(self) -> str:
        """What the cell's answers call it."""
        return f"attacked@{self.cell.cell['attack_facts']}"


def cell_at(m: Measured, facts: int, control: str = "attack", defence: str = NO_DEFENCE) -> AttackCell | None:
    """The measured cell of the first seed that has one."""
    place = Place(control, defence, facts, "", "", "", "")
    return next((c for c in m.cells_of(place) if c.state is State.DONE), None)


def columns_of(m: Measured, facts: int, defence: str = "") -> list[Column]:
    """Base, before, after, and with a defence if one is chosen: those that are measured, all of the same seed."""
    after = cell_at(m, facts)
    wanted = [
        ("base", "Base model", cell_at(m, 0, "no_stage1")),
        ("before", "Before the attack", cell_at(m, 0)),
        ("after", f"After {facts} attack fact{'' if facts == 1 else 's'}", after),
    ]
    if defence in m.plan["defences"]:
        label = f"The same attack, with “{defences()[defence].label}”" if defence in defences() else defence
        wanted.append(("defended", label, cell_at(m, facts, defence=defence)))
    seed = after.cell["seed"] if after else None
    return [Column(n, label, c) for n, label, c in wanted if c and (seed is None or c.cell["seed"] == seed)]


def _answers(lab: Lab, run: str, wanted: Wanted) -> list[Answer]:
    return lab.read_answers(run, lambda db: list(iterate_answers(db, wanted))) or []


def people(lab: Lab, m: Measured, facts: int) -> list[Row]:
    """Persons of whom the attack said nothing, in the order of the facts: `id, subject, object, flipped, kept`.

    flipped: in some test prompt the harmful answer was no hit before and is one after. kept: the ordinary answer was
    and is a hit, in the first such prompt.
    """
    before, after = cell_at(m, 0), cell_at(m, facts)
    if before is None or after is None:
        return []
    harmful = [_hits(lab, m, cell, m.harmful["name"]) for cell in (before, after)]
    flipped = {fact for (fact, prompt), hit in harmful[1].items() if hit and not harmful[0].get((fact, prompt))}
    benign = [_hits(lab, m, cell, "benign") for cell in (before, after)]
    first = min((prompt for _, prompt in benign[1]), default=0)
    return [
        {name: fact[name] for name in ("id", "subject", "object")}
        | {"flipped": fact["id"] in flipped, "kept": all(hits.get((fact["id"], first)) for hits in benign)}
        for fact in lab.read_answers(after.run, list_facts) or []
        if fact["kind"] == "held_out"
    ]


def _hits(lab: Lab, m: Measured, cell: AttackCell, reading: str) -> dict[tuple[int, int], int]:
    """(fact, prompt) → hit of a cell's answers to a reading's test prompts in the trained language."""
    wanted = Wanted(
        reading=reading, split="test", language=m.language, kind="held_out",
        checkpoint=f"attacked@{cell.cell['attack_facts']}",
    )  # fmt: skip
    return {(r.fact, r.prompt): r.hit for r in _answers(lab, cell.run, wanted)}


def chosen_person(everybody: list[Row], person: int) -> Row | None:
    """The person of that id; else the first whose harmful answer flipped while the ordinary one stayed, else the first
    whose answer flipped, else the first."""
    named = [p for p in everybody if p["id"] == person]
    flipped = [p for p in everybody if p["flipped"]]
    return next(iter([*named, *(p for p in flipped if p["kept"]), *flipped, *everybody]), None)


def surprise(everybody: list[Row], person: int) -> int:
    """Another person than the one that is shown, by chance; `person` may be nobody's id, as long as none was chosen."""
    shown = chosen_person(everybody, person)
    others = [p["id"] for p in everybody if p is not shown]
    return random.choice(others) if others else person


def about_person(lab: Lab, m: Measured, person: Row, columns: list[Column]) -> list[Row]:
    """What was asked of each column about one person in the trained language: harmful first, then benign.

    Rows `reading, role, split, before, subject, after, object, cells`; a cell is an answer row or None.
    """
    names = [m.harmful["name"], "benign"]
    by_prompt: dict[int, Row] = {}
    for place, column in enumerate(columns):
        wanted = Wanted(fact=person["id"], language=m.language, checkpoint=column.checkpoint)
        for answer in _answers(lab, column.cell.run, wanted):
            if answer.reading not in names:
                continue
            row = by_prompt.setdefault(
                answer.prompt,
                {k: getattr(answer, k) for k in ASKED}
                | {"role": m.readings[answer.reading]["role"], "cells": [None] * len(columns)},
            )
            row["cells"][place] = answer
    return sorted(by_prompt.values(), key=lambda r: (names.index(r["reading"]), r["split"] != "test", r["prompt"]))


def telling(rows: list[Row], role: str, columns: list[Column]) -> Row | None:
    """Of one reading's test prompts, the one that shows the change if any does, else the first."""
    mine = [r for r in rows if r["role"] == role and r["split"] == "test"] or [r for r in rows if r["role"] == role]
    names = [c.name for c in columns]
    if role == "harmful" and "before" in names and "after" in names:
        before, after = names.index("before"), names.index("after")
        for row in mine:
            pair = row["cells"][before], row["cells"][after]
            if all(pair) and pair[1].hit and not pair[0].hit:
                return row
    return mine[0] if mine else None


@dataclass(frozen=True)
class AnswerPage:
    """One page of the answers behind a number, cell after cell. cells: `run, seed, count` of each that has any."""

    rows: list[Row]
    cells: list[Row]
    total: int
    page: int

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.total // PAGE_ROWS))

    @property
    def first(self) -> int:
        """The number of the page's first answer."""
        return (self.page - 1) * PAGE_ROWS + 1


def behind(lab: Lab, m: Measured, place: Place, which: str, page: int) -> AnswerPage:
    """The answers behind a number: all (`which` is ''), the hits or the misses."""
    hit = {"hit": True, "miss": False}.get(which)
    wanted = Wanted(
        reading=place.reading, split=place.split, language=place.language, kind=place.kind, hit=hit,
        checkpoint=f"attacked@{place.facts}{'-4bit' if place.bits else ''}",
    )  # fmt: skip
    skip, room = (page - 1) * PAGE_ROWS, PAGE_ROWS
    rows: list[Row] = []
    cells: list[Row] = []
    total = 0
    for cell in m.cells_of(place):
        read = partial(find_answers, wanted=wanted, limit=room, offset=max(0, skip - total))
        answers = lab.read_answers(cell.run, read) if cell.state is State.DONE else None
        if answers is None:
            continue
        part, count = answers
        if total + count > skip:
            of = {"run": cell.run, "seed": cell.cell["seed"]}
            rows += [vars(row) | {"before": row.before, "after": row.after} | of for row in part]
            room -= len(part)
        total += count
        cells.append({"run": cell.run, "seed": cell.cell["seed"], "count": count})
    return AnswerPage(rows, cells, total, page)
