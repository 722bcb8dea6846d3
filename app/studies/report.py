"""A report of a study as a single HTML file: no script, no network, to be mailed or printed."""

from __future__ import annotations

from markupsafe import Markup

from app.shared.render import render
from app.shared.static_charts import svg
from app.studies.charts import chart_of, most_lines
from app.studies.grids import Grid
from app.studies.shown import shown_of
from app.studies.table import Table, waiting_words
from app.studies.view import View, counted, value_name
from engine import __version__
from storage.runs import State


def report_html(grid: Grid, view: View) -> str:
    """The report of a grid, as far as it has come: every measure by the rows and columns of the view."""
    if grid.asks_beside(view):
        parts = [("What is asked, after all training", shown_of(grid, view))]
    else:
        parts = [(label, shown_of(grid, view.but(measure=name))) for name, (label, *_) in grid.measures.items()]
    asked = [(label, shown) for label, shown in parts if any(cell.figure for cell in shown.table.cells.values())]
    first = parts[0][1]
    return render(
        "studies/report.html",
        grid=grid,
        study=grid.stored,
        version=__version__,
        runs=len(first.runs),
        done=sum(run.state is State.DONE for run in first.runs),
        seeds=len({seed for _, shown in asked for figure in shown.figures for seed in figure.seeds}),
        facts=grid.facts[first.asked["facts"]],
        language=first.asked["language"],
        fixed=[(axis.name, value_name(value)) for axis, value in first.table.others if len(axis.values) > 1],
        sections=[(label, shown.table, _picture(shown.table)) for label, shown in asked],
        most_lines=most_lines,
        value_name=value_name,
        counted=counted,
        waiting_words=waiting_words,
        plan=grid.yaml().strip(),
    )


def _picture(table: Table) -> Markup:
    """Its chart as SVG, in which the library has escaped every text."""
    chart = chart_of(table)
    return Markup(svg(chart) if chart else "")
