"""What decides on a real model whether stage 2 opens the held-out facts, and what leaks into other questions.

python -m tools.model_map run --home DIR --plan FILE.yaml [--row NAME …]   # goes on where it was stopped
python -m tools.model_map table --home DIR --plan FILE.yaml
python -m tools.model_map evidence --home DIR --plan FILE.yaml --row NAME   # one row, seed by seed, with intervals
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.models.catalogue import use_home
from storage.database import open_database
from tools.model_map.evidence import evidence_table
from tools.model_map.plan import read_plan
from tools.model_map.runs import carry_out_row
from tools.model_map.table import map_table

program = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Home = Annotated[Path, typer.Option(help="A home folder of its own: every row is a run in it.")]
Plan = Annotated[Path, typer.Option(help="The rows, as tools/model_map/plan.py reads them.")]
Rows = Annotated[list[str] | None, typer.Option("--row", help="Only this row (may be given again).")]
Keep = Annotated[bool, typer.Option(help="Keep the checkpoints of finished rows, to ask them.")]


@program.command()
def run(home: Home, plan: Plan, rows: Rows = None, keep: Keep = False) -> None:
    """Carry out the rows that are not done yet, each as a run of the lab."""
    use_home(home)
    for row in read_plan(plan).chosen(rows):
        carry_out_row(home, row, keep)


@program.command()
def table(home: Home, plan: Plan) -> None:
    """Print the table of what is done, as Markdown."""
    use_home(home)
    typer.echo(map_table(open_database(home), read_plan(plan)))


@program.command()
def evidence(home: Home, plan: Plan, row: Annotated[str, typer.Option(help="Which row of the plan.")]) -> None:
    """Print one row's figures, seed by seed and with intervals, as Markdown."""
    use_home(home)
    typer.echo(evidence_table(open_database(home), home, read_plan(plan), row))


if __name__ == "__main__":
    program()
