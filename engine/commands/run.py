"""Experiments from the command line: presets, show, later, run, queue, runs, cancel, retry, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from sqlite_utils import Database

from engine.commands.here import carry_out_here, carry_out_on, check_cluster
from engine.commands.mistake import (
    Home,
    Mistake,
    On,
    Results,
    RunId,
    check_target,
    mistakes_in,
    open_home,
    read_description,
    with_run,
    write_json,
)
from engine.corpus.resolve import resolve
from engine.evaluation.sayable import refuse_known
from engine.execution.later import later_experiment
from engine.execution.report import among_words, results_document
from engine.experiment import Experiment
from engine.models.files import experiment_problems, located
from engine.presets import EXPERIMENTS, describe_preset
from storage.database import default_home
from storage.measurements import Result, list_results
from storage.runs import LEASE_SECONDS, Run, State, add_run, claim_run, get_run, list_runs, request_stop, retry_run

Source = Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset's name, or a YAML or JSON file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a setting, e.g. stage1.epochs=10.")
]
Seed = Annotated[int | None, typer.Option(help="Decides names, facts, split and order.")]


def read_experiment(source: str, overrides: list[str] | None = None, seed: int | None = None) -> Experiment:
    """The resolved experiment of a preset or file, with overrides applied. Raises Mistake."""
    chosen = [] if seed is None else [f"seed={seed}"]
    with mistakes_in(source):
        experiment = resolve(read_description(EXPERIMENTS, source, [*(overrides or ()), *chosen]))
    return located(experiment)


def read_to_run(source: str, overrides: list[str] | None, seed: int | None) -> Experiment:
    """`read_experiment` of what is to be run: its answers are tried with the model's tokenizer, if that is here; what
    only deserves a remark goes to standard error. Raises Mistake."""
    experiment = read_experiment(source, overrides, seed)
    with mistakes_in(source):
        for remark in refuse_known(experiment):
            typer.echo(f"note: {remark}", err=True)
    return experiment


def presets() -> None:
    """List the presets."""
    width = max(len(name) for name in EXPERIMENTS.names())
    for name in EXPERIMENTS.names():
        typer.echo(f"{name:{width}}  {describe_preset(name)}")


def show(source: Source, overrides: Overrides = None, seed: Seed = None) -> None:
    """Print an experiment with everything written out, as YAML: a start for a file of your own."""
    typer.echo(read_experiment(source, overrides, seed).to_yaml(), nl=False)


def later(run_id: RunId, home: Home = None) -> None:
    """Print an experiment that teaches a finished run's model further facts by key token alone, as YAML."""
    finished = with_run(lambda db: get_run(db, run_id), run_id, home)
    with mistakes_in(f"run {run_id}"):
        typer.echo(later_experiment(home or default_home(), finished).to_yaml(), nl=False)


def run(
    source: Source,
    overrides: Overrides = None,
    seed: Seed = None,
    home: Home = None,
    results: Results = None,
    on: On = None,
) -> None:
    """Run an experiment here and now, with a progress bar."""
    experiment = read_to_run(source, overrides, seed)
    check_target(results)
    check_cluster(on)
    folder = home or default_home()
    db = open_home(folder)
    finished = carry_out(db, folder, queue_experiment(db, experiment).id, on)
    if results is not None:
        write_json(results, results_document(db, folder, finished))
    if finished.state is not State.DONE:
        raise Mistake(finished.error or f"the run was {finished.state.value}")
    _print_headline(finished)
    _print_choice(finished, list_results(db, finished.id))


def queue_experiment(db: Database, experiment: Experiment) -> Run:
    """Store a resolved experiment as a queued run. Raises Mistake when its model could not be loaded."""
    experiment = located(experiment)
    if errors := [problem for problem in experiment_problems(experiment) if problem.severity == "error"]:
        raise Mistake(str(errors[0]))
    data = experiment.model_dump(mode="json")
    return add_run(db, name=experiment.name, experiment=data, model=experiment.model, seed=experiment.seed)


def carry_out(db: Database, home: Path, run_id: str, on: str | None = None) -> Run:
    """The run as it ended in this process, or on the cluster at an address.

    Raises Mistake when it is stopped, or when a worker took it first.
    """

    def claim(worker: str) -> Run | None:
        claimed = claim_run(db, worker, LEASE_SECONDS, run_id)
        if claimed is None and get_run(db, run_id).worker not in (None, worker):
            raise Mistake(f"a worker of {home} took run {run_id} first: it goes on there")
        return claimed

    def shown(db: Database) -> tuple[float, str]:
        now = get_run(db, run_id)
        if now.state is State.DONE:
            return 1.0, "Done"
        return now.progress.get("fraction", 0), now.progress.get("message", "Starting")

    go_on = "the Runs page can retry it from its last checkpoint"
    ended = lambda: get_run(db, run_id).ended  # noqa: E731 (given by its name below)
    if on is None:
        carry_out_here(db, home, ended=ended, claim=claim, shown=shown, go_on=go_on)
    else:
        try:
            carry_out_on(on, home, ended=ended, claim=claim, shown=shown, go_on=go_on)
        finally:
            if get_run(db, run_id).state is State.QUEUED:
                request_stop(db, run_id)  # who asked for it here and now has left
    return get_run(db, run_id)


def _print_headline(finished: Run) -> None:
    experiment = Experiment.from_record(finished.experiment)
    when = "with the facts in the prompt" if experiment.in_context else "after stage 2"
    which = "facts held out of it" if _asked_facts(finished) == "held_out" else "facts that it trained on"
    typer.echo(f"run {finished.id}: {when}, {which}, ‘{experiment.stage2.language}’, generation accuracy")
    for split, row in finished.headline.items():
        value, low, high = (f"{row[key]:.2f}" for key in ("value", "low", "high"))
        unaided = f", {row['unaided']['value']:.2f} without the key token" if "unaided" in row else ""
        typer.echo(f"  {split:9} {value} [{low}–{high}]  n={row['n']} ({row['n_facts']} facts){unaided}")


def _asked_facts(finished: Run) -> str:
    return next((row.get("facts", "held_out") for row in finished.headline.values()), "held_out")


def _print_choice(finished: Run, rows: list[Result]) -> None:
    """The multiple choice of the same questions, and among how many options it was."""
    experiment = Experiment.from_record(finished.experiment)
    wanted = (experiment.checkpoints[-1], _asked_facts(finished), experiment.stage2.language, "choice_accuracy")
    chosen = [r for r in rows if (r.checkpoint, r.facts, r.language, r.metric) == wanted]
    if chosen:
        typer.echo(f"multiple choice, {among_words(chosen, experiment.evaluation.options)}")
    for r in chosen:
        typer.echo(f"  {r.split:9} {r.value:.2f} [{r.low:.2f}–{r.high:.2f}]  n={r.n} ({r.n_facts} facts)")


def queue(source: Source, overrides: Overrides = None, seed: Seed = None, home: Home = None) -> None:
    """Put an experiment into the queue for a worker, and print the run's id."""
    experiment = read_to_run(source, overrides, seed)
    typer.echo(queue_experiment(open_home(home), experiment).id)


def runs(home: Home = None) -> None:
    """List the newest runs."""
    for item in list_runs(open_home(home), limit=50):
        state = "recorded" if item.recorded else item.state.value
        typer.echo(f"{item.id}  {state:9}  {item.created_at}  {item.name}")


def cancel(run_id: RunId, home: Home = None) -> None:
    """Ask a queued or running run to stop."""
    state = with_run(lambda db: request_stop(db, run_id), run_id, home)
    typer.echo(f"run {run_id}: {state.value}")


def retry(run_id: RunId, home: Home = None) -> None:
    """Queue a failed or cancelled run again: it goes on from its last checkpoint."""
    with mistakes_in(f"run {run_id}"):
        state = with_run(lambda db: retry_run(db, run_id), run_id, home)
    typer.echo(f"run {run_id}: {state.value}")


def results(run_id: RunId, home: Home = None) -> None:
    """Print a run's results document as JSON."""
    folder = home or default_home()
    document = with_run(lambda db: results_document(db, folder, get_run(db, run_id)), run_id, folder)
    typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
