"""run.json: what was run and on what, beside a run's files, so that they can be read without the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.models.folders import write_whole
from storage.runs import Run


def write_run_file(folder: Path, run: Run, environment: dict[str, Any]) -> None:
    """Write HOME/runs/ID/run.json: id, experiment, environment; of an attack's cell also the attack and the cell.

    In place of an older one, which may be on its way into a backup. Raises OSError.
    """
    content: dict[str, Any] = {"id": run.id, "experiment": run.experiment, "environment": environment}
    if run.attack:
        content |= {"attack": run.attack, "cell": run.cell, "attacked_run": run.needs}
    write_whole(folder / "run.json", json.dumps(content, ensure_ascii=False, indent=1).encode())
