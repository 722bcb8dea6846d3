"""python -m engine study PRESET|FILE|ID [--model NAME] [--plan] [--home DIR] [--results FILE.json]
[--record FILE.json.xz]
python -m engine study ONE.json.xz --with OTHER.json.xz --record BOTH.json.xz"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlite_utils import Database

from engine.commands.grid import carry_out_grid, take_up_again
from engine.commands.here import check_cluster
from engine.commands.mistake import (
    Home,
    Mistake,
    On,
    Results,
    check_target,
    mistakes_in,
    open_home,
    read_description,
    write_json,
)
from engine.evaluation.questions import KEY_SPLIT
from engine.execution.paces import earlier_paces
from engine.execution.studies import recording
from engine.execution.studies.pooling import pool
from engine.execution.studies.queue import new_runs, queue_study, widen_study
from engine.execution.studies.recording import ENDING
from engine.execution.studies.report import study_figures
from engine.studies.cost import study_cost
from engine.studies.plan import PlannedRun, planned_runs
from engine.studies.presets import STUDIES
from engine.studies.study import DEPTH, METHOD, MODEL, SEED, Study, set_axis
from storage.database import default_home
from storage.grids import STUDY
from storage.measurements import TRAINING_TOKENS
from storage.runs import State
from storage.studies import ALL_FACTS, StudyFigure, choice_of, get_study, list_study_runs, retry_study

# The columns of the table in a terminal: the checkpoint's kind, the split.
COLUMNS = {
    "key token": ("memorised", "key"),
    "train, before": ("memorised", "train"),
    "train": ("generalised", "train"),
    "test": ("generalised", "test"),
    "unrelated": ("generalised", "unrelated"),
    "tokens a fact": ("generalised", TRAINING_TOKENS),
}
# The same, where it was asked.
REASONING_COLUMNS = {
    "reversal": ("generalised", "reversal"),
    "reversal, choice": ("generalised", choice_of("reversal")),
    "2-hop": ("generalised", "two_hop"),
    "2-hop, choice": ("generalised", choice_of("two_hop")),
}


def study(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE|ID|RECORDING", help="paper-main, a file, or a study to go on with or to widen."
        ),
    ],
    axes: Annotated[
        list[str] | None,
        typer.Option("--axis", metavar="PATH=VALUES", help='A field and its values, e.g. "stage2.facts=[1, 10]".'),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Run all of it on this model.")] = None,
    home: Home = None,
    results: Results = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.json.xz", help="Where to write its figures, for other labs.")
    ] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE.json.xz", help="To a recording: others, of other seeds or methods."),
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Only say what it would run.")] = False,
    queue_only: Annotated[bool, typer.Option("--queue", help="Leave the work to a worker; print the id.")] = False,
    on: On = None,
) -> None:
    """Run a grid of experiments: what is the same in several of them is computed once."""
    check_target(results)
    check_target(record)
    check_cluster(on)
    if record is not None and not record.name.endswith(ENDING):
        raise Mistake(f"the name of {record} does not end with {ENDING}: give it that ending, by which labs find it")
    if source.endswith(ENDING) or with_:
        return _pool([Path(source), *(with_ or ())], record)
    folder = home or default_home()
    db = open_home(folder)
    study_id = _existing(db, source)
    changed = [*(axes or ()), *([f"{MODEL}=[{json.dumps(model)}]"] if model else [])]
    described = _read(db, source, study_id, changed)
    if plan_only:
        with mistakes_in(source):
            if study_id is None:
                _print_plan(db, described, planned_runs(described))
            else:
                new = new_runs(db, study_id, described)
                typer.echo(f"{len(new)} of its runs are new in study {study_id}:")
                _print_plan(db, described, new)
        return
    if study_id is not None:
        take_up_again(db, STUDY, study_id, retry_study)
    with mistakes_in(source):
        if study_id is None:
            study_id = queue_study(db, described)
        elif changed:
            typer.echo(f"{widen_study(db, study_id, described)} runs are new in study {study_id}", err=True)
    if queue_only:
        typer.echo(study_id)
        return
    carry_out_grid(db, folder, STUDY, study_id, on, lambda cell: _words(cell["at"]))
    figures = study_figures(db, folder, study_id)
    if results is not None:
        write_json(results, {"study": get_study(db, study_id).plan, "rows": [asdict(figure) for figure in figures]})
    _print_table(study_id, described, figures)
    if failed := [run for run in list_study_runs(db, study_id) if run.state is not State.DONE]:
        raise Mistake(f"{len(failed)} runs did not end well; the first, {failed[0].run}: {failed[0].error}")
    if record is not None:
        _record(db, folder, study_id, record)


def _pool(sources: list[Path], out: Path | None) -> None:
    """Write recordings of the same study with other seeds or methods as one. Raises Mistake."""
    if out is None or len(sources) == 1:
        raise Mistake(f"{sources[0]} is a recording: give it others (--with) and a file for all of them (--record)")
    found = []
    for path in sources:
        try:
            found.append(recording.read_recording(path))
        except recording.DAMAGE as error:
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise Mistake(f"{path} cannot be read as a recorded study: {words}") from error
    try:
        with mistakes_in(sources[0]):
            recording.write_recording(pool(found), out)
    except OSError as error:
        raise Mistake(f"{out} cannot be written: {error}") from error
    typer.echo(f"{out}: {out.stat().st_size / 1e3:.0f} kB", err=True)


def _record(db: Database, home: Path, study_id: str, out: Path) -> None:
    """Write the study as a recording. Raises Mistake."""
    try:
        with mistakes_in(study_id):
            recording.record(db, home, study_id, out)
    except OSError as error:
        raise Mistake(f"{out} cannot be written: {error}") from error
    typer.echo(f"{out}: {out.stat().st_size / 1e3:.0f} kB", err=True)


def _existing(db: Database, source: str) -> str | None:
    try:
        return get_study(db, source).id
    except KeyError:
        return None


def _read(db: Database, source: str, study_id: str | None, axes: list[str]) -> Study:
    """The study of that id, preset or file, with axes set as `path=values`. Raises Mistake."""
    data = get_study(db, study_id).plan if study_id else read_description(STUDIES, source, None).model_dump(mode="json")
    with mistakes_in(source):
        for assignment in axes:
            set_axis(data, assignment)
        return Study.from_data(data)


def _words(at: dict[str, Any]) -> str:
    return ", ".join(f"{path} {value}" for path, value in at.items())


def _depths(run: PlannedRun) -> str:
    depths = run.experiment.branch_epochs
    return f"; depths {', '.join(map(str, depths))}" if any(depths) else ""


def _print_plan(db: Database, study: Study, runs: list[PlannedRun]) -> None:
    cost = study_cost(runs, study.keeps, partial(earlier_paces, db))
    typer.echo(
        f"{cost.runs} runs, which memorise {cost.memorised} times and generalise {cost.generalised} times; "
        f"{cost.bases} times a base is asked"
    )
    if not cost.seconds:
        typer.echo("how long it takes is unknown, as the size of a model is")
    if cost.seconds and cost.disk:
        least, middle, most = (f"{seconds / 60:.0f}" for seconds in cost.seconds)
        basis = "by earlier runs" if cost.from_earlier_runs else "a rough guess for this machine"
        typer.echo(f"about {middle} minutes ({least} to {most}), {basis}; {cost.disk / 1e9:.1f} GB at most")
    for run in runs:
        typer.echo(f"  {_words(run.at)}{_depths(run)}")


def _print_table(study_id: str, described: Study, figures: list[StudyFigure]) -> None:
    axes = [*([METHOD] if described.methods else []), *(path for path in described.axes if path not in (SEED, DEPTH))]
    asked, which = (ALL_FACTS, "all facts") if described.methods else ("held_out", "facts held out of stage 2")
    splits = {figure.split for figure in figures}
    columns = COLUMNS | {name: column for name, column in REASONING_COLUMNS.items() if column[1] in splits}
    table = Table(
        *axes,
        "stage 1 epochs",
        *columns,
        "seeds",
        title=f"study {study_id}: {which}, generation accuracy",
    )
    language = next((figure.language for figure in figures if figure.split == KEY_SPLIT), "en")  # the one trained in
    rows: dict[tuple[str, ...], dict[tuple[str, str], StudyFigure]] = {}
    for figure in figures:
        at = (*(str(figure.at.get(path, "")) for path in axes), str(figure.depth))
        kind = "generalised" if figure.kind == "context" else figure.kind  # what a method ends with
        if (figure.facts, figure.language) == (asked, language) or figure.split == TRAINING_TOKENS:
            rows.setdefault(at, {})[kind, figure.split] = figure
    for at, found in rows.items():
        shown = [found.get(column) for column in columns.values()]
        seeds = max((len(figure.seeds) for figure in shown if figure), default=0)
        table.add_row(*at, *(_cell(figure) for figure in shown), str(seeds))
    Console(width=max(110, 24 * len(axes) + 90) + 20 * (len(columns) - len(COLUMNS))).print(table)


def _cell(figure: StudyFigure | None) -> str:
    if figure is None:
        return "–"
    if figure.split == TRAINING_TOKENS:
        return f"{figure.value:,.0f}"
    said = f"{figure.value:.2f} [{figure.low:.2f}–{figure.high:.2f}]"
    if figure.chance is not None:
        return f"{said} (chance {figure.chance:.3f})"
    return said if abs(figure.unaided - figure.value) < 0.005 else f"{said} ({figure.unaided:.2f} unaided)"
