"""The engineer's half of the Attack page: the grid of cells, the table of all numbers, the list of attacks."""

from __future__ import annotations

from typing import Any

from app.attack.figures import Measured, Row, place_of
from app.attack.people import behind
from app.attack.progress import cell_words
from app.attack.view import Place, View
from app.attack.words import FINE_TUNES, facts_words
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.words import split_name
from engine.attack.tables import grouped, pooled_rows
from storage.acting import may_change
from storage.attacks import Attack, attack_counts
from storage.runs import ENDED

TABLE_ROWS = 30
# What the table can be narrowed to: field of a row → what it is called.
FILTERS = {
    "control": "Control",
    "defence": "Defence",
    "attack_facts": "Attack facts",
    "reading": "Asked",
    "split": "Prompts",
    "language": "Language",
    "facts": "About",
    "metric": "Measure",
}
USUAL = {"metric": "generation_accuracy", "facts": "held_out"}
KINDS = {
    "held_out": "facts held out",
    "trained": "facts it was taught",
    "never_memorised": "facts never memorised",
    "own": "what the base knew",
    "all": "model or data",
}
CELL_FILTERS = ("control", "defence", "attack_facts")


def filters_of(view: View) -> dict[str, str]:
    """The view's filters: field → value as text; `*` for a usual one that was taken off."""
    given = dict(pair.partition("=")[::2] for pair in view.filters.split(";") if "=" in pair)
    return {name: value for name, value in (USUAL | given).items() if name in (*FILTERS, "state") and value != "*"}


def grid_html(lab: Lab, m: Measured, view: View, listed: list[Attack]) -> str:
    """The whole half."""
    wanted = filters_of(view)
    rows = [r for r in m.rows if all(str(r[k]) == v for k, v in wanted.items() if k in FILTERS)]
    groups = list(grouped(rows).values())
    pages = -(-len(groups) // TABLE_ROWS)
    number = min(view.rows, max(1, pages))
    # A page's rows alone are pooled: thousands of intervals would take a second.
    pooled = pooled_rows([r for g in groups[(number - 1) * TABLE_ROWS : number * TABLE_ROWS] for r in g])
    return render(
        "attack/grid.html", m=m, view=view, grid=_grid(m, wanted), rows=[_shown(r) for r in pooled],
        total=len(groups), pages=pages, number=number,
        filters=[(k, label, wanted.get(k, ""), _values(m, k)) for k, label in FILTERS.items()],
        states=sorted(m.counts.items()), state=wanted.get("state", ""), usual=USUAL,
        attacks=[_listed(lab, a) for a in listed],
    )  # fmt: skip


def _values(m: Measured, field: str) -> list[tuple[str, str]]:
    """The values that a filter offers: (value, label)."""
    found = sorted({row[field] for row in m.rows}, key=lambda v: (isinstance(v, str), v))

    def label(value: Any) -> str:
        if field == "facts":
            return KINDS.get(value, value)
        return split_name(value) if field == "split" else str(value).replace("_", " ")

    return [(str(value), label(value)) for value in found if value != ""]


def _shown(row: Row) -> Row:
    return row | {
        "key": str(place_of(row)) if row["kind"] == "attack" else "",
        "about": KINDS.get(row["facts"], row["facts"]),
    }


def _grid(m: Measured, wanted: dict[str, str]) -> list[Row]:
    """Rows of cells: a row is everything but the number of attack facts."""
    rows: dict[tuple[Any, ...], Row] = {}
    for cell in m.cells:
        does = cell.cell
        if any(str(does[k]) != wanted[k] for k in CELL_FILTERS if k in wanted):
            continue
        if wanted.get("state") not in (None, cell.state.value):
            continue
        fields = ("kind", "control", "defence", "reading", "method", "prompts", "epochs", "learning_rate", "seed")
        row = rows.setdefault(tuple(does[k] for k in fields), {"cells": {}, "label": _row_label(m, does)})
        row["cells"][does["attack_facts"]] = cell, cell_words(m, does)
    return list(rows.values())


def _row_label(m: Measured, cell: Row) -> str:
    if cell["kind"] == "audit":
        return f"audit, seed {cell['seed']}"
    parts = [FINE_TUNES.get(cell["control"], "attack"), "" if cell["defence"] == "none" else cell["defence"]]
    if any(len(m.plan[name]) > 1 for name in ("methods", "prompts", "epochs", "learning_rates")):
        parts.append(f"{cell['method']}, {cell['prompts']} prompts × {cell['epochs']} at {cell['learning_rate']:g}")
    return " · ".join(p for p in (*parts, f"seed {cell['seed']}") if p)


def _listed(lab: Lab, attack: Attack) -> Row:
    counts = attack_counts(lab.db, attack.id)
    return {
        "id": attack.id,
        "name": attack.name,
        "created_at": attack.created_at,
        "recorded": attack.recorded,
        "counts": counts,
        "own": may_change(attack.owner),
        "owner_name": lab.names().get(attack.owner or "", ""),
        "active": any(state not in {s.value for s in ENDED} for state in counts),
        "stuck": bool(counts.get("failed") or counts.get("cancelled")),
        "relation": attack.experiment.get("relation"),
        "reading": attack.experiment.get("reading"),
        "defences": len(attack.experiment.get("defences", [])),
    }


def drawer_html(lab: Lab, m: Measured, view: View) -> str:
    """The answers behind one number; nothing for a number that this attack does not have."""
    place = Place.read(view.opened)
    if place is None:
        return ""
    answers = behind(lab, m, place, view.which, view.rows)
    reading = m.readings.get(place.reading)
    point = m.point(
        place.facts, place.reading, split=place.split, language=place.language, defence=place.defence,
        control=place.control, kind=place.kind, bits=place.bits,
    )  # fmt: skip
    return render(
        "attack/drawer.html", place=view.opened, p=place, point=point, answers=answers, which=view.which,
        role=reading["role"] if reading else "",
        reading=(reading.get("label") or reading["name"]) if reading else "",
        about=KINDS.get(place.kind, place.kind), facts=facts_words(place.facts),
    )  # fmt: skip
