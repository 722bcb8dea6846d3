"""Facts that come later, and later still: about whom they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.corpus.resolve import resolve
from engine.execution.later import later_experiment
from engine.execution.run_file import write_run_file
from engine.experiment import Experiment
from storage.database import open_database
from storage.folders import checkpoint_folder, run_folder
from storage.runs import Run, add_run, get_run


def done(home: Path, experiment: Experiment) -> Run:
    """A run of the experiment, as far as what comes later looks at it."""
    db = open_database(home)
    data = experiment.model_dump(mode="json")
    run = add_run(db, name="run", experiment=data, model=experiment.model, seed=experiment.seed)
    checkpoint_folder(run_folder(home, run.id), f"generalised@{experiment.branch_epochs[-1]}").mkdir(parents=True)
    write_run_file(run_folder(home, run.id), run, {})
    found = get_run(db, run.id)
    db.close()
    return found


@pytest.mark.parametrize(("names", "seed"), [("invented", 0), ("natural", 0), ("invented", 2**31 - 1)])
def test_no_name_comes_again_however_often_more_is_taught(tmp_path: Path, names: str, seed: int) -> None:
    relation = {"name": "mother", "key_token": "[X]", "facts": {"generate": 40, "names": names}}
    experiment = resolve(Experiment.from_data({"relations": [relation], "seed": seed, "stage2": {"facts": 20}}))
    taught: set[str] = set()
    for _ in range(3):
        new = {name for fact in experiment.relations[0].explicit_facts for name in (fact.subject, fact.object)}
        assert len(new) == 80 and not new & taught
        taught |= new
        experiment = resolve(later_experiment(tmp_path, done(tmp_path, experiment)))
    assert experiment.seed == (seed + 3) % 2**31
