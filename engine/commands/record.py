"""python -m engine record RUN [RUN …] --to FILE.json.xz"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.commands.mistake import Home, Mistake, check_target, mistakes_in, open_home
from engine.execution.recorded.record import record
from engine.execution.recorded.restore import ENDING
from storage.database import default_home
from storage.runs import get_run


def record_command(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Runs that are done, such as the seeds of one preset.")
    ],
    to: Annotated[Path, typer.Option(metavar="FILE.json.xz", help="Where to write them, for other labs.")],
    name: Annotated[str, typer.Option(help="What the recording is called (default: the first run's name).")] = "",
    made_by: Annotated[
        str, typer.Option(metavar="COMMAND", help="What gave the runs; {seed} stands for each one's seed.")
    ] = "",
    home: Home = None,
) -> None:
    """Write finished runs as one file: figures, curves, every answer, but no models."""
    check_target(to)
    if not to.name.endswith(ENDING):
        raise Mistake(f"the name of {to} does not end with {ENDING}: give it that ending, by which labs find it")
    folder = home or default_home()
    db = open_home(folder)
    for run_id in run_ids:
        try:
            run = get_run(db, run_id)
        except KeyError as error:
            raise Mistake(f"there is no run ‘{run_id}’ in {folder}") from error
        if Path(run.model).is_absolute():
            typer.echo(f"note: run {run_id} names the folder {run.model}, which other machines have not", err=True)
    try:
        with mistakes_in("record"):
            record(db, folder, run_ids, to, name=name, command=made_by)
    except OSError as error:
        raise Mistake(f"{to} cannot be written: {error}") from error
    typer.echo(f"{to}: {len(set(run_ids))} runs, {to.stat().st_size / 1e6:.2f} MB")
