"""What can be taken away from a study: every figure as CSV, the table that is looked at as LaTeX, its description."""

from __future__ import annotations

import json
from dataclasses import fields

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from app.shared.downloads import csv_file, text_file
from app.shared.lab import Lab
from app.studies.shown import Shown, shown_of
from app.studies.table import Cell
from app.studies.view import ASKED, FACTS, MEASURES, View, value_name
from engine.execution.studies.report import study_figures
from engine.studies.study import Study
from storage.measurements import TRAINING_TOKENS
from storage.studies import StoredStudy, StudyFigure, get_study

_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
     **{sign: "\\" + sign for sign in "&%$#_"}}
)  # fmt: skip
FIGURES = tuple(field.name for field in fields(StudyFigure) if field.name not in ("at", "seeds"))


def add_study_export_routes(site: FastAPI, lab: Lab) -> None:
    """Add `/export/study/ID/figures.csv`, `table.tex` and `study.yaml`. Plain links: they work without any script."""

    def known(study: str) -> StoredStudy:
        try:
            return get_study(lab.db, study[:32])
        except KeyError:
            raise HTTPException(404, "There is no such study: it may have been deleted.") from None

    @site.get("/export/study/{study}/figures.csv")
    def figures_csv(study: str) -> Response:
        stored = known(study)
        figures = study_figures(lab.db, lab.home, stored.id)
        axes = list(dict.fromkeys(path for figure in figures for path in figure.at))
        rows = [
            {
                **{path: figure.at.get(path, "") for path in axes},
                **{name: getattr(figure, name) for name in FIGURES},
                "seeds": json.dumps(figure.seeds),
            }
            for figure in figures
        ]
        return csv_file(f"study-{stored.id}-figures.csv", (*axes, *FIGURES, "seeds"), rows)

    @site.get("/export/study/{study}/table.tex")
    def table_tex(study: str, request: Request) -> Response:
        stored = known(study)
        view = View.of_address(request.query_params).but(study=stored.id)
        return text_file(f"study-{stored.id}-table.tex", "application/x-tex", latex(shown_of(lab, stored, view), view))

    @site.get("/export/study/{study}/study.yaml")
    def study_yaml(study: str) -> Response:
        stored = known(study)
        return text_file(f"study-{stored.id}.yaml", "application/yaml", Study.from_record(stored.plan).to_yaml())


def latex(shown: Shown, view: View) -> str:
    """The table as a LaTeX `tabular` that needs no package; its measure and settings stand in a comment."""
    table = shown.table
    fixed = [f"{axis.name} {value_name(value)}" for axis, value in table.others if axis.values != ("",)]
    measured = "what is asked at the end" if table.columns.path == ASKED else MEASURES[view.measure][0]
    told = [measured, f"facts {FACTS[shown.asked['facts']].lower()}", shown.asked["language"], *fixed]
    head = " & ".join([_tex(table.rows.name), *(_tex(value_name(value)) for value in table.columns.values)])
    told += [f"guessing {name + ' ' if name else ''}{chance:.3f}" for name, chance in table.chances.items()]
    lines = [
        " & ".join([_tex(value_name(row)), *(_cell(table.cell(row, column)) for column in table.columns.values)])
        for row in table.rows.values
    ]
    return "\n".join(
        [
            f"% {' '.join(shown.study.name.split())}: {', '.join(told)}; 95 % intervals, facts being the unit",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns.values)}}}",
            r"\hline",
            rf" & \multicolumn{{{len(table.columns.values)}}}{{c}}{{{_tex(table.columns.name)}}} \\",
            rf"{head} \\",
            r"\hline",
            *(rf"{line} \\" for line in lines),
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _tex(text: str) -> str:
    return text.translate(_LATEX)


def _cell(cell: Cell) -> str:
    figure = cell.figure
    if figure and figure.split == TRAINING_TOKENS:
        return f"{figure.value:.0f}"
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]" if figure else "--"
