"""The results document: what `--results` writes and the page exports."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from storage.measurements import Result, list_results
from storage.runs import Run

HEADLINE_METRIC = "generation_accuracy"
RUN_FIELDS = (
    "id", "name", "state", "seed", "created_at", "started_at", "finished_at", "error", "environment", "recorded",
)  # fmt: skip


def results_document(db: Database, run: Run) -> dict[str, Any]:
    """`{"run": …, "experiment": …, "rows": […]}` of a run, as far as it has come."""
    return {
        "run": {name: getattr(run, name) for name in RUN_FIELDS} | {"state": run.state.value},
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


def among_words(rows: list[Result], asked: int) -> str:
    """Among how many options the choices of these rows were: ‘among 4 options (10 asked for)’; '' where none tells."""
    counts = [n for row in rows for n in (row.options_least, row.options_most) if n is not None]
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    wanted = "" if least == most == asked else f" ({asked:,} asked for)"
    return f"among {least:,} options{wanted}" if least == most else f"among {least:,} to {most:,} options{wanted}"
