"""What can be taken away from a study: every figure as CSV and Parquet, a report, a table as LaTeX, its description."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from app.server.security import REPORT_HEADERS
from app.shared.downloads import bytes_file, csv_file, csv_lines, text_file
from app.shared.lab import Lab
from app.studies.grids import Grid, grid_of
from app.studies.latex import latex
from app.studies.report import report_html
from app.studies.shown import shown_of
from app.studies.view import View
from engine.exports.parquet import NoParquet, parquet
from storage.studies import StudyFigure

FIGURES = tuple(field.name for field in fields(StudyFigure) if field.name not in ("at", "seeds"))
PARQUET = "application/vnd.apache.parquet"


def add_study_export_routes(site: FastAPI, lab: Lab) -> None:
    """Add `/export/study/ID/…`. Plain links: they work without any script."""

    def known(study: str) -> Grid:
        try:
            return grid_of(lab, study[:32])
        except KeyError:
            raise HTTPException(404, "There is no such study: it may have been deleted.") from None

    @site.get("/export/study/{study}/figures.csv")
    def figures_csv(study: str) -> Response:
        grid = known(study)
        return csv_file(f"{grid.file_name}-figures.csv", *figure_rows(grid))

    @site.get("/export/study/{study}/figures.parquet")
    def figures_parquet(study: str) -> Response:
        grid = known(study)
        try:
            data = parquet(*figure_rows(grid))
        except NoParquet as error:
            raise HTTPException(501, f"{error}.") from None
        return bytes_file(f"{grid.file_name}-figures.parquet", PARQUET, data)

    @site.get("/export/study/{study}/report.html")
    def report(study: str, request: Request) -> Response:
        grid = known(study)
        text = report_html(grid, _view(grid, dict(request.query_params)))
        return text_file(f"{grid.file_name}-report.html", "text/html", text, REPORT_HEADERS)

    @site.get("/export/study/{study}/table.tex")
    def table_tex(study: str, request: Request) -> Response:
        grid = known(study)
        text = _table_tex(grid, _view(grid, dict(request.query_params)))
        return text_file(f"{grid.file_name}-table.tex", "application/x-tex", text)

    @site.get("/export/study/{study}/study.yaml")
    def study_yaml(study: str) -> Response:
        grid = known(study)
        return text_file(f"{grid.file_name}.yaml", "application/yaml", grid.yaml())


def figure_rows(grid: Grid) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """The columns, and a row a figure: the axes' values, what the figure is of, its interval, each seed's as JSON."""
    figures = grid.all_figures()
    axes = list(dict.fromkeys(path for figure in figures for path in figure.at))
    rows = [
        {
            # None, not an empty text: that would make texts of the numbers of all the others in Parquet.
            **{path: figure.at.get(path) for path in axes},
            **{name: getattr(figure, name) for name in FIGURES},
            "seeds": json.dumps(figure.seeds),
        }
        for figure in figures
    ]
    return (*axes, *FIGURES, "seeds"), rows


def _view(grid: Grid, parameters: dict[str, str]) -> View:
    return View.of_address(parameters).but(study=grid.stored.id)


def _table_tex(grid: Grid, view: View) -> str:
    return latex(shown_of(grid, view), view)


# What `rote-lab export study` writes, by the file's ending.
FORMS: dict[str, Callable[[Grid, View], str | bytes]] = {
    ".csv": lambda grid, view: "".join(csv_lines(*figure_rows(grid))),
    ".parquet": lambda grid, view: parquet(*figure_rows(grid)),
    ".html": report_html,
    ".tex": _table_tex,
    ".yaml": lambda grid, view: grid.yaml(),
}


def written(lab: Lab, study: str, ending: str, parameters: dict[str, str]) -> bytes:
    """A study or an attack's grid in the form of a file's ending. parameters: the page's, for what shows one table.

    Raises KeyError for a study that is not there, and ValueError for another ending (NoParquet without pyarrow).
    """
    if ending not in FORMS:
        raise ValueError(f"a study is written as {', '.join(FORMS)}: give the file one of these endings")
    grid = grid_of(lab, study)
    data = FORMS[ending](grid, _view(grid, parameters))
    return data.encode("utf-8", "replace") if isinstance(data, str) else data
