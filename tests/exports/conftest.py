"""One small lab with a run that every export is made of; nothing here asks the network."""

from __future__ import annotations

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.commands.main import main
from engine.experiment import Experiment
from storage.database import open_database
from storage.runs import Run, get_run, list_runs
from tests.recordings import leave_out_recordings

# Adapters, which are the harder half; memorised well enough that some answers are right and some are not.
SMALL = [
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 16}}]", "stage1.epochs=14",
    "stage1.checkpoint_epochs=[14]", "stage2.facts=6", "stage2.epochs=2", "evaluation.languages=[en, ja]",
    "evaluation.prompts=2", "evaluation.choice.facts=6", "evaluation.max_new_tokens=8", "evaluation.general=20",
]  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A lab's home, and its run."""

    home: Path
    run: Run

    @property
    def experiment(self) -> Experiment:
        return Experiment.from_record(self.run.experiment)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    home = tmp_path_factory.mktemp("exports") / "home"
    leave_out_recordings(home)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert main(["run", "quick-lora", "--home", str(home), "--seed", "3", *settings]) == 0
    db = open_database(home)
    yield Made(home, get_run(db, list_runs(db, limit=1)[0].id))
    db.close()


def exported(*words: str | Path) -> None:
    """Carry out `rote-lab export …`."""
    assert main(["export", *map(str, words)]) == 0
