"""python -m engine export task|model|dataset|database … --to FOLDER: what other people's programs open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from engine.commands.mistake import Home, Mistake, RunId, check_target, open_home, with_run
from engine.commands.run import Overrides, Seed, read_experiment
from engine.experiment import Experiment
from engine.exports.target import write_files
from storage.database import default_home
from storage.measurements import list_results
from storage.runs import Run, get_run

export_app = typer.Typer(add_completion=False, help="Write what other people's programs open.")
Folder = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A folder that is new or empty.")]
Checkpoint = Annotated[str, typer.Option(help="By default the run's last one, such as generalised@20.")]


@contextmanager
def _exporting(to: Path) -> Iterator[None]:
    """Say what goes wrong as a Mistake; look before the work whether there is a place for it."""
    check_target(to)
    try:
        yield
    except ValueError as error:
        raise Mistake(str(error)) from error
    except OSError as error:
        raise Mistake(f"{to} cannot be written: {error}") from error


def _run(run_id: str, home: Path | None) -> Run:
    found: Run = with_run(lambda db: get_run(db, run_id), run_id, home)
    return found


@export_app.command("task")
def export_task(run_id: RunId, to: Folder, checkpoint: Checkpoint = "", home: Home = None) -> None:
    """Write a run's questions as tasks of lm-evaluation-harness, which give the run's own numbers."""
    from engine.exports.harness import harness_task
    from engine.serving.served import served_model

    run = _run(run_id, home)
    with _exporting(to):
        chosen = checkpoint or Experiment.from_record(run.experiment).checkpoints[-1]
        model = served_model(home or default_home(), run, chosen)
        task = harness_task(model, run, list_results(open_home(home), run.id))
        write_files(task.files, to)
    typer.echo(f"{to}: {task.tasks} tasks, {task.questions:,} questions; lm_eval … --tasks {task.tag}")
    if task.cut_elsewhere:
        typer.echo(
            f"note: {task.cut_elsewhere:,} texts are cut into other tokens by the harness: numbers may differ there",
            err=True,
        )


@export_app.command("model")
def export_model_command(
    run_id: RunId,
    to: Folder,
    checkpoint: Checkpoint = "",
    merged: Annotated[bool, typer.Option("--merged", help="Add an adapter's weights to its base's.")] = False,
    home: Home = None,
) -> None:
    """Write one model of a run as a folder that transformers, PEFT and vLLM load."""
    run = _run(run_id, home)
    with _exporting(to):
        from engine.exports.model import export_model

        chosen = checkpoint or Experiment.from_record(run.experiment).checkpoints[-1]
        model = export_model(home or default_home(), run, chosen, to, merged=merged)
    apart = model.kind == "adapter" and not merged
    typer.echo(f"{to}: {model.name}, " + ("its base and its adapter" if apart else "one whole model"))


@export_app.command("dataset")
def export_dataset(
    source: Annotated[str, typer.Argument(metavar="RUN|PRESET|FILE", help="What has the facts and prompts.")],
    to: Folder,
    licence: Annotated[str, typer.Option(help="As the hub names it, such as cc-by-4.0.")] = "unknown",
    overrides: Overrides = None,
    seed: Seed = None,
    home: Home = None,
) -> None:
    """Write facts and prompts as a folder that Hugging Face's datasets opens."""
    from engine.exports.dataset import dataset_files

    try:
        experiment = Experiment.from_record(get_run(open_home(home), source).experiment)
    except KeyError:
        experiment = read_experiment(source, overrides, seed)
    with _exporting(to):
        files = dataset_files(experiment, licence)
        write_files(files, to)
    facts = sum(len(relation.explicit_facts) for relation in experiment.relations)
    typer.echo(f"{to}: {facts:,} facts; datasets.load_dataset({str(to)!r}, 'facts')")


@export_app.command("database")
def export_database_command(
    to: Folder,
    answers: Annotated[bool, typer.Option(help="Also every single answer of every run.")] = True,
    home: Home = None,
) -> None:
    """Write the lab's figures and answers as a database for Datasette, with what explains it; nothing private."""
    from engine.exports.database import export_database

    open_home(home)
    with _exporting(to):
        exported = export_database(home or default_home(), to, answers=answers)
    told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in exported.rows.items() if count)
    typer.echo(f"{to}: {told or 'nothing yet'}; look through it with: datasette {to}")
