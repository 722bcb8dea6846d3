"""The document of an attack: what `--results` writes and tools read."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from engine.attack.tables import costs, detection, pooled_rows, scan_matrix
from storage.attacks import get_attack, list_attack_results, list_cells


def attack_document(db: Database, attack_id: str) -> dict[str, Any]:
    """What `--results` writes and what tools/attack_tables.py reads. Raises KeyError when there is no such attack."""
    attack = get_attack(db, attack_id)
    rows, cells = list_attack_results(db, attack_id), list_cells(db, attack_id)
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
