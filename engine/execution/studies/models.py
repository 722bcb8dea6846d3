"""The models of a study's runs that it does not keep: they go when they have been asked, and the answers stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlite_utils import Database

from engine.studies.study import Study
from storage.folders import checkpoint_folder, run_folder
from storage.runs import ENDED, State
from storage.studies import get_study, list_models


def forget_models(db: Database, home: Path, study_id: str) -> None:
    """Remove what a study does not keep of its done runs: what stage 2 made, and what stage 1 made where no run is left
    that goes on from it. Of all of them, since a kill may have come between a run's end and this."""
    study = Study.from_record(get_study(db, study_id).plan)
    if study.keep == "all":
        return
    runs = list_models(db, study_id)
    going_on = {run.memorises for run in runs if run.state not in ENDED}
    for run in runs:
        if run.state is State.DONE and not study.keeps(run.seed):
            _remove(run_folder(home, run.run), "generalised")
            if run.memorises not in going_on:
                _remove(run_folder(home, run.run), "memorised")


def _remove(folder: Path, kind: str) -> None:
    for checkpoint in checkpoint_folder(folder, "").glob(f"{kind}@*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
