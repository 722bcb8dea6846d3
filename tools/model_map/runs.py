"""Carries out rows of a map as runs of a lab. Rows that memorise alike share the memorised checkpoint."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from sqlite_utils import Database

from engine.commands.run import carry_out, queue_experiment, read_to_run
from engine.evaluation.answer import Answer
from engine.evaluation.questions import fact_rows, prompt_rows
from engine.experiment import Experiment
from storage.answers import all_answers, evaluated_checkpoints, open_answers, store_answers, store_questions
from storage.checkpoints import CheckpointName
from storage.database import open_database
from storage.folders import checkpoint_folder, run_folder
from storage.measurements import list_results, replace_results
from storage.runs import Run, State, get_run, list_runs, retry_run
from tools.model_map.plan import Row


def experiment_of(row: Row) -> Experiment:
    """The resolved experiment of a row, with the row's name. Raises Mistake."""
    return read_to_run(row.preset, list(row.settings), row.seed).model_copy(update={"name": row.run_name})


def find_run(db: Database, experiment: Experiment) -> Run | None:
    """The newest run of just this experiment, whatever it is called, if there is one."""
    wanted = _but(experiment.model_dump(mode="json"), "name", "description")
    return next((run for run in _whole_runs(db) if _but(_written_out(run), "name", "description") == wanted), None)


def carry_out_row(home: Path, row: Row, keep: bool) -> None:
    """Do what is left to do of a row; prints a line at its end. Raises Mistake.

    keep: whether the checkpoints stay. The memorised ones stay always, for rows that memorise alike.
    """
    db = open_database(home)
    experiment = experiment_of(row)
    run = find_run(db, experiment) or queue_experiment(db, experiment)
    if run.state is State.DONE:
        return
    if run.state in (State.FAILED, State.CANCELLED):
        retry_run(db, run.id)
    begun = time.monotonic()
    memorised = _share_memorised(db, home, run.id, experiment)
    finished = carry_out(db, home, run.id)
    if not keep:
        for epoch in experiment.branch_epochs:
            shutil.rmtree(checkpoint_folder(run_folder(home, run.id), f"generalised@{epoch}"), ignore_errors=True)
    seconds = time.monotonic() - begun
    shared = ", memorised before" if memorised else ""
    typer.echo(
        f"{row.name} (seed {row.seed}): {finished.state.value} in {seconds:.0f} s{shared} {finished.error or ''}"
    )


def _share_memorised(db: Database, home: Path, run_id: str, experiment: Experiment) -> bool:
    """Link the memorised checkpoints of a run that memorised the very same into this run's folder."""
    wanted = memorising(experiment.model_dump(mode="json"))
    folder = run_folder(home, run_id)
    for other in _whole_runs(db, State.DONE.value):
        if memorising(theirs := _written_out(other)) != wanted:
            continue
        for epoch in experiment.stage1.saved_epochs:
            source = checkpoint_folder(run_folder(home, other.id), f"memorised@{epoch}")
            target = checkpoint_folder(folder, source.name)
            if source.is_dir() and not target.exists():
                shutil.copytree(source, target, copy_function=os.link)
        if asking(theirs) == asking(experiment.model_dump(mode="json")):
            _share_answers(db, home, other.id, run_id)
        return True
    return False


def _share_answers(db: Database, home: Path, other: str, run_id: str) -> None:
    """Take over what another run asked the checkpoints before stage 2, where the very same is asked of them."""
    theirs, mine = open_answers(run_folder(home, other)), open_answers(run_folder(home, run_id))
    experiment = Experiment.from_record(get_run(db, run_id).experiment)
    store_questions(mine, fact_rows(experiment), prompt_rows(experiment))
    asked = set(evaluated_checkpoints(mine))
    for checkpoint in evaluated_checkpoints(theirs):
        if CheckpointName.parse(checkpoint).kind == "generalised" or checkpoint in asked:
            continue
        rows = [vars(r) for r in list_results(db, other) if r.checkpoint == checkpoint]
        replace_results(db, run_id, checkpoint, rows)
        store_answers(mine, checkpoint, [Answer(**row) for row in all_answers(theirs, checkpoint)])


def _whole_runs(db: Database, state: str = "") -> Iterator[Run]:
    """Every run with its experiment, the newest first."""
    return (get_run(db, run.id) for run in list_runs(db, limit=100_000, state=state))


def _written_out(run: Run) -> dict[str, Any]:
    """A run's experiment with what settings that came later say of it."""
    return Experiment.from_record(run.experiment).model_dump(mode="json")


def memorising(experiment: dict[str, Any]) -> dict[str, Any]:
    """What of an experiment decides what stage 1 makes."""
    replay = experiment["stage1"]["replay"]
    # What is replayed in languages that nobody named is in those that are asked.
    asked = (
        replay and not replay["languages"] and (experiment["stage2"]["language"], experiment["evaluation"]["languages"])
    )
    return {**_but(experiment, "name", "description", "stage2", "evaluation"), "replayed in": asked}


def asking(experiment: dict[str, Any]) -> dict[str, Any]:
    """What of an experiment decides what the checkpoints before stage 2 are asked."""
    stage2 = experiment["stage2"]
    return {"evaluation": experiment["evaluation"], **{k: stage2[k] for k in ("facts", "language", "branch_epochs")}}


def _but(experiment: dict[str, Any], *left_out: str) -> dict[str, Any]:
    return {key: value for key, value in experiment.items() if key not in left_out}
