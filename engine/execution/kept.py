"""The checkpoints of a run that can be built on. A damaged one is set aside, never used and never deleted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sqlite_utils import Database

from engine.execution.aside import set_aside, tell_damage
from engine.execution.failures import PlainError
from engine.experiment import Experiment
from engine.models.folders import whole
from engine.models.identity import noted_base
from engine.training.checkpoint import TrainingState, flaw, load_training_state
from storage.checkpoints import CheckpointName
from storage.folders import checkpoint_folder, resume_folder


class KeptCheckpoints:
    """Finds what a run has kept, and tells in its history what had to be set aside."""

    def __init__(self, db: Database, folder: Path, run: str, experiment: Experiment) -> None:
        self.db, self.folder, self.run, self.experiment = db, folder, run, experiment

    def sound(self, checkpoint: str) -> TrainingState | None:
        """A kept checkpoint, every file of it as it was written; None when there is none."""
        name, folder = CheckpointName.parse(checkpoint), checkpoint_folder(self.folder, checkpoint)
        if name.kind == "memorised":
            return self._sound(folder, "stage1", name.epoch)
        return self._sound(folder, f"stage2@{name.epoch}", self.experiment.stage2.epochs)

    def newest(self, stage: str, kept: Iterable[TrainingState], before: int) -> TrainingState | None:
        """Where to go on: the newest of these and of the stage's rolling one, if that is of an epoch before this."""
        rolling = self._sound(resume_folder(self.folder, stage), stage, None)
        found = [state for state in [*kept, rolling] if state and state.resumable and state.epoch < before]
        return max(found, key=lambda state: state.epoch, default=None)

    def given_up(self, folder: Path, error: Exception) -> PlainError:
        """Set a checkpoint aside that turned out to be unusable, so that the next try does not meet it again."""
        aside = set_aside(whole(folder) or folder, self.folder)
        self._tell(f"The checkpoint {folder.name} cannot be used: it was moved to {aside}")
        return PlainError(f"A checkpoint cannot be used ({error}); it was moved to {aside}: retry trains it again.")

    def check_base(self, base: str, others: Iterable[TrainingState]) -> None:
        """Raises PlainError when what is to be trained again would begin from other weights than what is there."""
        for state in others:
            if noted_base(whole(state.folder) or state.folder) not in ("", base):
                raise PlainError(
                    f"The base model of this run is another one now, so that {state.folder.name} and what is missing "
                    "beside it would not fit together: run the experiment again."
                )

    def _sound(self, folder: Path, stage: str, epoch: int | None) -> TrainingState | None:
        while found := whole(folder) or (folder if os.path.lexists(folder) else None):
            problem = flaw(found)
            if not problem:
                state = load_training_state(folder)
                if state.stage == stage and epoch in (None, state.epoch):
                    return state
                problem = f"it is of {state.stage}, epoch {state.epoch}"
            aside = set_aside(found, self.folder)
            self._tell(
                f"The checkpoint {folder.name} is damaged ({problem}): it was moved to {aside}, and is trained again"
            )
        return None

    def _tell(self, sentence: str) -> None:
        tell_damage(self.db, self.run, sentence)
