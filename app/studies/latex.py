"""A study's table as LaTeX."""

from __future__ import annotations

from app.studies.shown import Shown
from app.studies.table import Cell, Table
from app.studies.view import ASKED, View, counted, value_name
from engine.execution.studies.kept import is_kept
from storage.measurements import TRAINING_TOKENS

_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
     # In LaTeX's usual encoding of fonts these would be ¡, ¿ and —.
     "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
     **{sign: "\\" + sign for sign in "&%$#_"}}
)  # fmt: skip


def latex(shown: Shown, view: View) -> str:
    """The table as a LaTeX `tabular` that needs no package; measure, settings and numbers of answers are comments."""
    table = shown.table
    fixed = [f"{axis.name} {value_name(value)}" for axis, value in table.others if axis.values != ("",)]
    grid = shown.grid
    beside = table.columns.path == ASKED
    measured, _, split = ("what is asked at the end", (), "") if beside else grid.split_of(grid.measure_of(view))
    about = [] if is_kept(split) else [f"facts {grid.facts[shown.asked['facts']].lower()}"]
    told = [measured, *about, shown.asked["language"], *fixed]
    head = " & ".join([_tex(table.rows.name), *(_tex(value_name(value)) for value in table.columns.values)])
    told += [f"guessing {name + ' ' if name else ''}{chance:.3f}" for name, chance in table.chances.items()]
    lines = [
        " & ".join([_tex(value_name(row)), *(_cell(table.cell(row, column)) for column in table.columns.values)])
        for row in table.rows.values
    ]
    return "\n".join(
        [
            f"% {' '.join(grid.stored.name.split())}: {', '.join(told)}; 95 % intervals, facts being the unit",
            *_counts(table),
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


def _counts(table: Table) -> list[str]:
    """How many answers, facts and seeds the cells stand on: of some, seeds may still be under way."""
    rows = {row: [_count(table.cell(row, column)) for column in table.columns.values] for row in table.rows.values}
    if len(every := {count for counts in rows.values() for count in counts}) == 1:
        return [f"% each: {every.pop()}"]
    return [f"% {' '.join(value_name(row).split())}: {' | '.join(counts)}" for row, counts in rows.items()]


def _count(cell: Cell) -> str:
    figure = cell.figure
    if figure is None:
        return "nothing yet"
    seeds = f"seeds {' '.join(map(str, figure.seeds))}"
    return (
        seeds if figure.split == TRAINING_TOKENS else f"n = {figure.n}, {figure.n_facts} {counted(figure)[1]}, {seeds}"
    )


def _tex(text: str) -> str:
    # Behind the `\\` of the row before, these would be its options.
    return ("{}" if text.startswith(("[", "*")) else "") + text.translate(_LATEX)


def _cell(cell: Cell) -> str:
    figure = cell.figure
    if figure and figure.split == TRAINING_TOKENS:
        return f"{figure.value:.0f}"
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]" if figure else "--"
