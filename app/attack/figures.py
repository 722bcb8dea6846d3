"""One attack as far as it has been measured, turned into the numbers that the Attack page shows.

Only one setting of a grid is told as a story: the first method, number of prompts, epochs and rate of the experiment.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from app.attack import words
from app.attack.view import Place
from app.attack.words import Point
from app.shared.lab import Lab
from engine.attack.experiment import NO_DEFENCE
from engine.attack.tables import costs, detection, pooled_rows, scan_matrix
from engine.evaluation.summary import UNAIDED
from engine.execution.attacks.report import with_cell_twins
from storage.attacks import Attack, AttackCell, cell_results, get_attack, list_cells
from storage.runs import ENDED, State

Row = dict[str, Any]
MAIN = "generation_accuracy"
MOST_KEPT = 12
SETTING = {"methods": "method", "prompts": "prompts", "epochs": "epochs", "learning_rates": "learning_rate"}


def place_of(row: Row) -> Place:
    """Where the answers are that a result row is made of."""
    return Place(
        row["control"], row["defence"], row["attack_facts"], row["reading"], row["split"], row["language"],
        row["facts"], row["checkpoint"].endswith("bit"),
    )  # fmt: skip


def pooled_point(rows: list[Row], key: str) -> Point:
    """The number of the same question in every seed."""
    pooled = pooled_rows(rows)[0]
    numbers = {name: pooled[name] for name in ("value", "low", "high", "n", "n_facts", "seeds")}
    return Point(**numbers, by_fact=[pair for row in rows for pair in row["by_fact"]], key=key)


class Measured:
    """An attack, its cells and the rows that they have measured so far (with the fields of their cells)."""

    def __init__(self, attack: Attack, cells: list[AttackCell], rows: list[Row]) -> None:
        self.attack, self.cells, self.rows = attack, cells, rows
        self._points: dict[Place, Point | None] = {}

    @property
    def plan(self) -> dict[str, Any]:
        """The experiment, resolved, as plain data."""
        return self.attack.experiment

    @cached_property
    def setting(self) -> dict[str, Any]:
        """The setting that the story tells."""
        return {field: self.plan[name][0] for name, field in SETTING.items()}

    @cached_property
    def sizes(self) -> list[int]:
        """The numbers of attack facts."""
        return sorted(set(self.plan["facts"]))

    @cached_property
    def story_rows(self) -> list[Row]:
        """The rows of the story's setting; cells that are not trained belong to every setting."""
        return [
            row
            for row in self.rows
            if row["kind"] == "attack"
            and (row["attack_facts"] == 0 or all(row[k] == v for k, v in self.setting.items()))
        ]

    @cached_property
    def _by_place(self) -> dict[tuple[str, Place], list[Row]]:
        found: dict[tuple[str, Place], list[Row]] = {}
        for row in self.story_rows:
            if row["metric"] in (MAIN, UNAIDED):
                found.setdefault((row["metric"], place_of(row)), []).append(row)
        return found

    @cached_property
    def language(self) -> str:
        """The language that was trained."""
        return next((row["language"] for row in self.rows if row["split"] == "key"), "en")

    @cached_property
    def readings(self) -> dict[str, dict[str, Any]]:
        """The readings by name, `benign` and the taught harmful one first."""
        return {reading["name"]: reading for reading in self.plan["readings"]}

    @property
    def harmful(self) -> dict[str, Any]:
        """The reading that the attack teaches."""
        return self.readings[self.plan["reading"]]

    def control_reading(self, control: str) -> dict[str, Any] | None:
        """The reading that a control of that role taught."""
        taught = {c.cell["reading"] for c in self.cells if c.cell["control"] == control}
        return next((self.readings[name] for name in taught if name in self.readings), None)

    def point(
        self, facts: int, reading: str, *, split: str = "test", language: str | None = None,
        defence: str = NO_DEFENCE, control: str = "attack", kind: str = "held_out", bits: bool = False,
    ) -> Point | None:  # fmt: skip
        """One number over all seeds; None while unmeasured."""
        # Controls of another reading start where the attack does: that point is measured once.
        if facts == 0 and control in ("neutral", "nonsense"):
            control = "attack"
        place = Place(
            control, defence, facts, reading, split, self.language if language is None else language, kind, bits
        )
        if place not in self._points:
            rows, twins = (self._by_place.get((metric, place), []) for metric in (MAIN, UNAIDED))
            point = pooled_point(rows, str(place)) if rows else None
            # Not where only some seeds have a twin.
            if point and len(twins) == len(rows) and [t["value"] for t in twins] != point.seeds:
                point = replace(point, unaided=pooled_point(twins, str(place)))
            self._points[place] = point
        return self._points[place]

    def elsewhere(self, facts: int) -> list[tuple[str, Point, Point]]:
        """Other questions about the same subjects: the split, how often they bring up the memorised object before the
        attack, and after it."""
        asked = [(s, self.point(0, "", split=s), self.point(facts, "", split=s)) for s in ("unrelated", "decoy")]
        return [(split, before, after) for split, before, after in asked if before and after]

    @cached_property
    def measured_sizes(self) -> list[int]:
        """The sizes of the plain attack of which there is something to show."""
        return [n for n in self.sizes if self.point(n, self.harmful["name"])]

    @property
    def largest(self) -> int:
        """The largest attack; of those that are measured, if any is."""
        return (self.measured_sizes or self.sizes)[-1]

    @cached_property
    def persons(self) -> int:
        """How many persons the attack said nothing about (of one seed)."""
        return max((r["n_facts"] for r in self.story_rows if r["facts"] == "held_out"), default=self.plan["ask_facts"])

    @property
    def subjects(self) -> tuple[str, str]:
        """What the facts are about, one and many."""
        return words.subjects(self.plan["relation"])

    @cached_property
    def costs(self) -> dict[str, Row]:
        """What each defence costs, by name; `none` among them."""
        rows = [row for row in self.story_rows if row["metric"] in (MAIN, UNAIDED)]
        return {row["defence"]: row for row in costs(rows, self.cells)}

    @cached_property
    def matrix(self) -> list[Row]:
        """The scan: checkpoint × reading."""
        return scan_matrix(self.story_rows)

    @cached_property
    def detection(self) -> list[Row]:
        """How well the scan tells attacked checkpoints from clean ones."""
        return detection(self.story_rows)

    @cached_property
    def audit(self) -> list[Row]:
        """The audit's figures over all seeds."""
        return pooled_rows([row for row in self.rows if row["kind"] == "audit"])

    def cells_of(self, place: Place) -> list[AttackCell]:
        """The cells that a number is made of, a seed each."""
        wanted = {"control": place.control, "defence": place.defence, "attack_facts": place.facts, "kind": "attack"}
        if place.facts:
            wanted |= self.setting
        return [c for c in self.cells if all(c.cell[k] == v for k, v in wanted.items())]

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state."""
        return dict(Counter(cell.state.value for cell in self.cells))

    @property
    def done(self) -> int:
        """How many cells are measured."""
        return self.counts.get("done", 0)

    @property
    def active(self) -> bool:
        """Whether anything is still to come by itself."""
        return any(cell.state not in ENDED for cell in self.cells)


class Attacks:
    """Measured attacks of one home, kept as long as nothing of them changes. Safe to call from any thread."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._kept: dict[str, tuple[Any, Measured]] = {}
        self._rows: dict[str, tuple[str | None, list[Row]]] = {}
        self._lock = threading.Lock()

    def measured(self, attack_id: str) -> Measured:
        """The attack as it is now. Raises KeyError when there is none of that id."""
        attack = get_attack(self.lab.db, attack_id)
        cells = list_cells(self.lab.db, attack.id)
        sign = [(c.run, c.state, c.finished_at) for c in cells]
        with self._lock:
            kept = self._kept.get(attack.id)
            if kept and kept[0] == sign:
                # What is measured is the same; what runs now and how far it is may have changed.
                kept[1].cells = cells
                return kept[1]
            rows = [
                row for cell in cells if cell.state is State.DONE for row in self._rows_of(cell, bool(attack.recorded))
            ]
            measured = Measured(attack, cells, rows)
            self._kept[attack.id] = (sign, measured)
            while len(self._kept) > MOST_KEPT:
                old = next(iter(self._kept))
                gone = self._kept.pop(old)[1]
                for cell in gone.cells:
                    self._rows.pop(cell.run, None)
            return measured

    def _rows_of(self, cell: AttackCell, recorded: bool) -> list[Row]:
        # A recorded attack keeps one seed's answers: twins of its figures are those that it brings.
        kept = self._rows.get(cell.run)
        if kept is None or kept[0] != cell.finished_at:
            rows = cell_results(self.lab.db, cell.run)
            if not recorded:
                rows = with_cell_twins(rows, partial(self.lab.answers, cell.run))
            self._rows[cell.run] = kept = (cell.finished_at, rows)
        return kept[1]
