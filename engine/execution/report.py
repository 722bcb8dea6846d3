"""The results document: what `--results` writes and the page exports."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from storage.measurements import Result, list_results
from storage.runs import Run

HEADLINE_METRIC = "generation_accuracy"


def results_document(db: Database, run: Run) -> dict[str, Any]:
    """`{"run": …, "experiment": …, "rows": […]}` of a run, as far as it has come."""
    return {
        "run": {
            "id": run.id,
            "name": run.name,
            "state": run.state.value,
            "seed": run.seed,
            "created_at": run.created_at,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "error": run.error,
            "environment": run.environment,
        },
        "experiment": run.experiment,
        "rows": [vars(row) for row in list_results(db, run.id)],
    }


def headline(rows: list[Result], checkpoint: str, language: str) -> dict[str, Any]:
    """The figures for the list of runs: held-out facts, generation accuracy of one checkpoint, by split."""
    return {
        row.split: {key: getattr(row, key) for key in ("value", "low", "high", "n", "n_facts")}
        for row in rows
        if (row.checkpoint, row.facts, row.language, row.metric) == (checkpoint, "held_out", language, HEADLINE_METRIC)
    }
