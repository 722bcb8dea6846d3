"""One stage of a run while it trains: what is told of it, and what is written; in this process or in several."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.estimate import PASSES_PER_TRAINED_TOKEN
from engine.evaluation.evaluate import probe_key_tokens
from engine.execution.progress import Progress
from engine.execution.saving import Enough, Saving
from engine.experiment import Experiment
from engine.models.loading import LoadedModel
from engine.settings import Optimisation
from engine.training.checkpoint import TrainingState
from engine.training.loop import StepReport, Trainer, train
from engine.training.replay import Replayed
from engine.training.sequences import TrainingSequence
from storage.answers import forget_answers
from storage.folders import resume_folder

logger = logging.getLogger("engine")


@dataclass(frozen=True)
class StageTraining:
    """`stage` as in the loop, `words` for a person; `kept`: where the epochs to be kept are written.

    waiting: takes the points of curves that the run is to store.
    """

    experiment: Experiment
    folder: Path
    stage: str
    words: str
    sequences: Sequence[TrainingSequence]
    kept: Mapping[int, Path]
    answers: Database
    waiting: list[dict[str, Any]]
    progress: Progress

    @property
    def settings(self) -> Optimisation:
        """Of this stage."""
        return self.experiment.stage1 if self.stage == "stage1" else self.experiment.stage2

    @property
    def rolling(self) -> Path:
        """Where it is written what the stage can go on from."""
        return resume_folder(self.folder, self.stage)

    @property
    def _steps_an_epoch(self) -> int:
        return -(-len(self.sequences) // self.settings.batch_size)

    def train(self, loaded: LoadedModel, start: TrainingState | None, *, mixed: bool, replay: Replayed | None) -> None:
        """Train `loaded` in this process until the last of the kept epochs is stored. Raises as `train` does."""
        saving = Saving(self.kept, self.rolling)

        def on_epoch(epoch: int, trainer: Trainer) -> None:
            if self.stage == "stage1" and self.experiment.evaluation.probe_facts:
                recall = probe_key_tokens(loaded, self.experiment, self.experiment.evaluation.probe_facts)
                step = epoch * self._steps_an_epoch
                point = {"stage": self.stage, "series": "probe", "step": step, "epoch": float(epoch)}
                self.waiting.append({**point, "value": recall})
            if saving.after(epoch, trainer):
                self.is_kept(epoch)
            saving.stop_if_enough(epoch)

        with contextlib.suppress(Enough):
            train(
                loaded, self.sequences, self.settings, seed=self.experiment.seed, stage=self.stage, start=start,
                on_step=self.on_step, on_epoch=on_epoch, mixed=mixed, replay=replay,
                optimizer=self.experiment.tuning.optimizer,
            )  # fmt: skip

    def on_step(self, report: StepReport) -> None:
        """Tell of a step. Raises what `Progress` raises."""
        point = {"stage": self.stage, "step": report.step, "epoch": round(report.epoch, 4)}
        self.waiting.append({**point, "series": "loss", "value": report.loss})
        if report.replay_loss is not None:
            self.waiting.append({**point, "series": "replay loss", "value": report.replay_loss})
        epochs = self.settings.epochs
        epoch = min(epochs, -(-report.step // self._steps_an_epoch))
        self.progress.advance(
            PASSES_PER_TRAINED_TOKEN * report.tokens,
            stage=self.stage,
            epoch=epoch,
            epochs=epochs,
            step=report.step,
            steps=report.steps,
            loss=round(report.loss, 4),
            message=f"{self.words}: epoch {epoch} of {epochs}",
        )

    def is_kept(self, epoch: int) -> None:
        """A kept epoch was written: answers of an older one of its name are another model's."""
        forget_answers(self.answers, self.kept[epoch].name)
        logger.info("%s: kept epoch %d", self.stage, epoch)
