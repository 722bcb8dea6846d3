"""A table of the Paper page as CSV: what was published, and our figures with the command that repeats them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response

from app.paper.sources import Measured, Sources
from app.paper.table import Beside, beside
from app.shared.downloads import csv_file
from app.shared.lab import Lab
from engine.commands.program import as_called
from engine.paper.tables import Paper, load_paper

OURS = ("value", "low", "high", "unaided", "n", "n_facts")
FIELDS = (
    "table", "series", "x", "column", "published", "published_about", "published_words", "published_model",
    "published_in", *OURS, "n_counts", "seeds", "model", "study", "measured_at", "command",
)  # fmt: skip


def add_paper_export_routes(site: FastAPI, lab: Lab) -> None:
    """Add `/export/paper/TABLE/figures.csv`, of the study `?source=` where there is one of that name."""

    @site.get("/export/paper/{table}/figures.csv")
    def figures_csv(table: str, source: str = "") -> Response:
        paper, sources = load_paper(), Sources(lab)
        if table not in paper.tables or not paper.tables[table].columns:
            raise HTTPException(404, "There is no such table: choose one of the page Paper.")
        measured = sources.chosen(paper.tables[table], source[:60])
        shown = beside(paper.tables[table], sources.ours(measured))
        return csv_file(f"paper-{table}.csv", FIELDS, rows_of(paper, shown, measured))


def rows_of(paper: Paper, shown: Beside, measured: Measured | None) -> Iterator[dict[str, Any]]:
    """A row for each place that has a published value or one of ours."""
    table = shown.table
    for line in (*shown.lines, *shown.further):
        for column, cell in line.cells.items():
            if not shown.said(cell, column) and cell.ours is None:
                continue
            row = dict.fromkeys(FIELDS, "") | {
                "table": table.title, "series": line.series, "x": line.x, "column": table.columns[column].title,
                "published": cell.published.value, "published_about": "yes" if cell.published.about else "",
                "published_words": cell.published.words,
            }  # fmt: skip
            if shown.said(cell, column):
                row |= {"published_model": table.model, "published_in": f"arXiv {paper.source.arxiv}"}
            if cell.ours is not None and measured is not None:
                row |= {name: getattr(cell.ours, name) for name in OURS} | {
                    "n_counts": table.columns[column].counted,
                    "seeds": json.dumps({seed: own["value"] for seed, own in cell.ours.seeds.items()}),
                    "model": measured.model, "study": measured.study or f"recorded, {measured.id}",
                    "measured_at": measured.at, "command": as_called(measured.command),
                }  # fmt: skip
            yield row
