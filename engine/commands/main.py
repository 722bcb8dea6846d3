"""The command line: `rote-lab COMMAND` once the package is installed, and in a checkout

python -m engine presets
python -m engine readings [RELATION|FILE]
python -m engine run PRESET|FILE [--set stage1.epochs=10 …] [--seed N] [--home DIR] [--results FILE.json]
python -m engine attack PRESET|FILE|ID [--home DIR] [--results FILE.json]
python -m engine worker [--home DIR]
python -m engine serve RUN [--backend auto|vllm|embedded] [--port N]
python -m engine ask RUN --subject NAME [--prompt TEXT] [--json]

Exit code 0 only on success; a user's mistake is one line on standard error and exit code 2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from engine.commands.attack import attack
from engine.commands.mistake import Home, Mistake, RunId, open_home, read_source, with_run, write_json
from engine.commands.program import options
from engine.commands.readings import readings_command
from engine.commands.serving import ask_command, serve
from engine.description import override, read_mapping
from engine.experiment import Experiment
from engine.models.source import from_anywhere
from engine.presets import describe_preset, preset_names, preset_text
from storage import runs as run_storage
from storage.database import default_home, open_database
from storage.runs import Run, State

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.callback()(options)

Source = Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset's name, or a YAML or JSON file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a setting, e.g. stage1.epochs=10.")
]
Seed = Annotated[int | None, typer.Option(help="Decides names, facts, split and order.")]


def read_experiment(source: str, overrides: list[str], seed: int | None) -> Experiment:
    """The resolved experiment of a preset or file, with overrides applied. Raises Mistake."""
    try:
        data = read_mapping(_source_text(source))
        for assignment in overrides:
            override(data, assignment)
        if seed is not None:
            data["seed"] = seed
        experiment = Experiment.from_data(data).resolved()
        return experiment.model_copy(update={"model": from_anywhere(experiment.model)})
    except ValueError as error:
        raise Mistake(f"{source}: {error}") from error


def _source_text(source: str) -> str:
    if source in preset_names():
        return preset_text(source)
    return read_source(source, preset_names())


@app.command()
def presets() -> None:
    """List the presets."""
    width = max(len(name) for name in preset_names())
    for name in preset_names():
        typer.echo(f"{name:{width}}  {describe_preset(name)}")


@app.command()
def show(source: Source, overrides: Overrides = None, seed: Seed = None) -> None:
    """Print an experiment with everything written out, as YAML: a start for a file of your own."""
    typer.echo(read_experiment(source, overrides or [], seed).to_yaml(), nl=False)


@app.command()
def run(
    source: Source,
    overrides: Overrides = None,
    seed: Seed = None,
    home: Home = None,
    results: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Where to write the result rows.")] = None,
) -> None:
    """Run an experiment here and now, with a progress bar."""
    experiment = read_experiment(source, overrides or [], seed)
    if results is not None and not results.absolute().parent.is_dir():
        raise Mistake(f"the folder of {results} does not exist: make it first")
    folder = home or default_home()
    db = open_home(folder)
    queued = queue_experiment(db, experiment)
    finished = _carry_out(db, folder, queued)
    if results is not None:
        from engine.execution.report import results_document

        write_json(results, results_document(db, finished))
    if finished.state is not State.DONE:
        raise Mistake(finished.error or f"the run was {finished.state.value}")
    _print_headline(finished)


def queue_experiment(db: Any, experiment: Experiment) -> Run:
    """Store a resolved experiment as a queued run."""
    data = experiment.model_dump(mode="json")
    return run_storage.add_run(db, name=experiment.name, experiment=data, model=experiment.model, seed=experiment.seed)


def _carry_out(db: Any, home: Path, queued: Run) -> Run:
    """Claim the run for this process and carry it out, showing a bar on standard error."""
    from engine.execution.pipeline import execute_run
    from engine.execution.worker import LeaseKeeper, Registration
    from storage.runs import LEASE_SECONDS

    me = Registration(db)
    me.beat(queued.id, force=True)
    claimed = run_storage.claim_run(db, me.id, LEASE_SECONDS, queued.id)
    if claimed is None:
        raise Mistake(f"a worker of {home} took run {queued.id} first: it goes on there")
    try:
        with LeaseKeeper(home, claimed), _Bar(home, claimed.id):
            execute_run(db, home, claimed)
    except KeyboardInterrupt:
        run_storage.finish_run(db, claimed.id, claimed.attempt, State.CANCELLED)
        raise Mistake("stopped; the Runs page can retry it from its last checkpoint") from None
    finally:
        from storage.workers import remove_worker

        remove_worker(db, me.id)
    return run_storage.get_run(db, claimed.id)


class _Bar:
    """A progress bar fed from the run's row, as the page is; silent where standard error is no terminal."""

    def __init__(self, home: Path, run_id: str) -> None:
        import threading

        self._home, self._run_id, self._end = home, run_id, threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _show(self) -> None:
        db = open_database(self._home)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("Starting", total=1.0)
            while not self._end.wait(0.5):
                progress = run_storage.get_run(db, self._run_id).progress
                bar.update(task, completed=progress.get("fraction", 0), description=progress.get("message", "Starting"))
            if run_storage.get_run(db, self._run_id).state is State.DONE:
                bar.update(task, completed=1.0, description="Done")
        db.close()


def _print_headline(finished: Run) -> None:
    language = finished.experiment["stage2"]["language"]
    typer.echo(f"run {finished.id}: after stage 2, facts held out of it, ‘{language}’, generation accuracy")
    for split, row in finished.headline.items():
        value, low, high = (f"{row[key]:.2f}" for key in ("value", "low", "high"))
        typer.echo(f"  {split:9} {value} [{low}–{high}]  n={row['n']} ({row['n_facts']} facts)")


@app.command()
def queue(source: Source, overrides: Overrides = None, seed: Seed = None, home: Home = None) -> None:
    """Put an experiment into the queue for a worker, and print the run's id."""
    experiment = read_experiment(source, overrides or [], seed)
    typer.echo(queue_experiment(open_home(home or default_home()), experiment).id)


@app.command()
def runs(home: Home = None) -> None:
    """List the newest runs."""
    for item in run_storage.list_runs(open_home(home or default_home()), limit=50):
        typer.echo(f"{item.id}  {item.state.value:9}  {item.created_at}  {item.name}")


@app.command()
def cancel(run_id: RunId, home: Home = None) -> None:
    """Ask a queued or running run to stop."""
    state = _stored(lambda db: run_storage.request_stop(db, run_id), run_id, home)
    typer.echo(f"run {run_id}: {state.value}")


@app.command()
def retry(run_id: RunId, home: Home = None) -> None:
    """Queue a failed or cancelled run again: it goes on from its last checkpoint."""
    state = _stored(lambda db: run_storage.retry_run(db, run_id), run_id, home)
    typer.echo(f"run {run_id}: {state.value}")


@app.command()
def results(run_id: RunId, home: Home = None) -> None:
    """Print a run's results document as JSON."""
    from engine.execution.report import results_document

    document = _stored(lambda db: results_document(db, run_storage.get_run(db, run_id)), run_id, home)
    typer.echo(json.dumps(document, ensure_ascii=False, indent=1))


@app.command()
def worker(
    home: Home = None,
    parent: Annotated[int | None, typer.Option(help="End when the process of this id, the parent, ends.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the queue is empty.")] = False,
) -> None:
    """Take runs from the queue until stopped."""
    from engine.execution.worker import run_worker

    folder = home or default_home()
    open_home(folder).close()
    run_worker(folder, parent, once)


def _stored(action: Callable[[Any], Any], run_id: str, home: Path | None) -> Any:
    return with_run(action, run_id, home or default_home())


app.command("readings")(readings_command)
app.command()(attack)
app.command()(serve)
app.command("ask")(ask_command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        outcome = app(words or ["--help"], standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except Mistake as error:
        message = str(error)
    except typer.TyperException as error:
        # For an option's value this text also names the option.
        context = getattr(error, "ctx", None)
        message = error.format_message() + (f" (see {context.command_path} --help)" if context else "")
    except (typer.Abort, KeyboardInterrupt):
        message = "stopped"
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
