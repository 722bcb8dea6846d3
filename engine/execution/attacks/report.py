"""The document of an attack: what `--results` writes and tools read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.attack.measure import figures
from engine.attack.tables import costs, detection, pooled_rows, scan_matrix
from engine.evaluation.hits import key_token_judge
from engine.evaluation.summary import UNAIDED
from engine.execution.report import HEADLINE_METRIC, key_tokens_of
from storage.answer_search import Wanted, iterate_answers
from storage.answers import ANSWERS_NAME, open_answers
from storage.attacks import cell_results, get_attack, list_attack_results, list_cells
from storage.folders import run_folder
from storage.runs import get_run


def attack_document(db: Database, home: Path, attack_id: str) -> dict[str, Any]:
    """What `--results` writes and what tools/attack_tables.py reads. `home`: where the answers are.

    Raises KeyError when there is no such attack.
    """
    attack = get_attack(db, attack_id)
    cells = list_cells(db, attack_id)
    rows = list_attack_results(db, attack_id)
    if not attack.recorded:
        rows = [row for c in cells for row in with_cell_twins(cell_results(db, c.run), _answers(db, home, c.run))]
    shown = [{name: value for name, value in row.items() if name != "by_fact"} for row in rows]
    return {
        "attack": {"id": attack.id, "name": attack.name, "created_at": attack.created_at},
        "experiment": attack.experiment,
        "cells": [
            {"run": c.run, "state": c.state.value, "attacked_run": c.needs, **c.cell, **c.headline} for c in cells
        ],
        "rows": shown,
        "pooled": pooled_rows(rows),
        "scan": scan_matrix(rows),
        "detection": detection(rows),
        "costs": costs(rows, cells),
    }


def with_cell_twins(rows: list[dict[str, Any]], answers: Callable[[], Database | None]) -> list[dict[str, Any]]:
    """A cell's rows, and the twin of each generation accuracy that an older lab stored without one, made of the cell's
    answers: opened only if they are needed, with what tells whether they say a key token. Without answers there are no
    twins: not measured. Not for recorded attacks, which keep the answers of their first seed alone."""
    mine = [row for row in rows if row["metric"] == HEADLINE_METRIC]
    if not mine or any(row["metric"] == UNAIDED for row in rows) or (opened := answers()) is None:
        return rows
    with closing(opened) as db:
        aloud = next(iterate_answers(db, Wanted(hit=True, says_key_token=True), 1), None)
        made = ((row, _counted(db, row) if aloud else {}) for row in mine)
        return [*rows, *(row | {"metric": UNAIDED} | counted for row, counted in made if counted is not None)]


def _counted(db: Database, row: dict[str, Any]) -> dict[str, Any] | None:
    """A row's figures of the answers behind it; None where there are none."""
    wanted = Wanted(**{name: row[name] for name in ("checkpoint", "reading", "split", "language")}, kind=row["facts"])
    by_fact: dict[int, list[int]] = {}
    for answer in iterate_answers(db, wanted):
        pair = by_fact.setdefault(answer.fact, [0, 0])
        pair[0] += answer.hit and not answer.says_key_token
        pair[1] += 1
    pairs = list(by_fact.values())
    return figures(pairs, True, row["seed"]) | {"by_fact": pairs} if pairs else None


def _answers(db: Database, home: Path, run: str) -> Callable[[], Database | None]:
    def opened() -> Database | None:
        folder = run_folder(home, run)
        if not (folder / ANSWERS_NAME).exists():
            return None
        return open_answers(folder, key_token_judge(key_tokens_of(get_run(db, run).experiment)))

    return opened
