"""One run from wherever it is to its end: base model → stage 1 → for each kept epoch: evaluate, stage 2, evaluate.

Everything it does is either on disk whole or not at all, so that calling it again after a `kill -9` goes on from the
last checkpoint and, on a CPU with the same seed, ends with the same numbers.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.estimate import PASSES_PER_QUESTION, PASSES_PER_TRAINED_TOKEN
from engine.evaluation.answer import Answer
from engine.evaluation.evaluate import check_lengths, evaluate_checkpoint, probe_key_tokens
from engine.evaluation.questions import count_questions, fact_rows, prompt_rows
from engine.evaluation.summary import summarise
from engine.execution.environment import describe_environment
from engine.execution.failures import PlainError
from engine.execution.progress import Progress
from engine.execution.report import headline
from engine.execution.run_file import write_run_file
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, load_checkpoint, prepare_for_training
from engine.training.checkpoint import TrainingState, is_complete, load_training_state
from engine.training.loop import StepReport, StopTraining, Trainer, train
from engine.training.sequences import TrainingSequence, stage1_sequences, stage2_sequences
from storage.answers import all_answers, evaluated_checkpoints, open_answers, store_answers, store_questions
from storage.checkpoints import BASE, CheckpointName
from storage.folders import checkpoint_folder, resume_folder
from storage.measurements import add_measurements, list_results, replace_results
from storage.runs import Run, State, add_event, set_environment, set_progress

logger = logging.getLogger("engine")

RESUME_EVERY_SECONDS = 30


class RunExecution:
    """The state of one execution: which model is in memory, which series wait to be written."""

    def __init__(self, db: Database, folder: Path, run: Run) -> None:
        self.db, self.folder, self.run = db, folder, run
        self.experiment = Experiment.from_data(run.experiment)
        self.answers = open_answers(folder)
        self.waiting: list[dict[str, Any]] = []
        self.progress = Progress(0, self._write_progress)

    def go(self) -> dict[str, Any]:
        """Do what is left to do; returns the headline figures."""
        environment = describe_environment()
        set_environment(self.db, self.run.id, self.run.attempt, environment)
        write_run_file(self.folder, self.run, environment)
        store_questions(self.answers, fact_rows(self.experiment), prompt_rows(self.experiment))
        logger.info("attempt %d of run %s", self.run.attempt, self.run.id)
        self.progress.advance(0, force=True, stage="loading", message="Loading the model")
        base = load_base(self.experiment)
        stage1 = stage1_sequences(self.experiment, base)
        stage2 = stage2_sequences(self.experiment, base)
        if cut := check_lengths(base, self.experiment):
            words = f"{cut:,} questions leave less room than max_new_tokens: their answers end with the model's context"
            add_event(self.db, self.run.id, "shortened", words)
            logger.info(words)
        self.progress.total = self._total_passes(stage1, stage2)
        self._evaluate("base", base)
        loaded = prepare_for_training(base, self.experiment)
        self._check_disk(loaded)
        del base
        self._stage1(loaded, stage1)
        del loaded
        for epoch in self.experiment.stage1.saved_epochs:
            self._branch(epoch, stage2)
        self.progress.advance(0, force=True, stage="done", message="Done")
        last = self.experiment.checkpoints[-1]
        return headline(list_results(self.db, self.run.id), last, self.experiment.stage2.language)

    def wait_for_device(self) -> None:
        """Say that the run waits for a model server, or another run, to leave the device. Raises StopTraining."""
        words = "Waiting until the device is free"
        self.progress.advance(0, force=True, stage="loading", message=words)

    def _stage1(self, loaded: LoadedModel, sequences: list[TrainingSequence]) -> None:
        settings = self.experiment.stage1
        kept = {e: checkpoint_folder(self.folder, f"memorised@{e}") for e in settings.saved_epochs}
        newest = self._newest("stage1", kept)
        tokens = PASSES_PER_TRAINED_TOKEN * sum(len(s.input_ids) for s in sequences)
        self.progress.skip(tokens * (newest[0] if newest else 0))
        if newest and newest[0] == settings.epochs:
            return
        self._train(loaded, "stage1", "Memorising", sequences, settings, kept, newest)

    def _branch(self, epoch: int, sequences: list[TrainingSequence]) -> None:
        """Evaluate one kept stage 1 epoch, and what stage 2 makes of it."""
        memorised, generalised = f"memorised@{epoch}", f"generalised@{epoch}"
        target = checkpoint_folder(self.folder, generalised)
        branches = epoch in self.experiment.branch_epochs
        trained = is_complete(target)
        loaded = None
        if not self._evaluated(memorised) or (branches and not trained):
            loaded = load_checkpoint(self.experiment, checkpoint_folder(self.folder, memorised))
        self._evaluate(memorised, loaded)
        if not branches:
            return
        tokens = PASSES_PER_TRAINED_TOKEN * sum(len(s.input_ids) for s in sequences)
        settings, stage = self.experiment.stage2, f"stage2@{epoch}"
        if trained:
            self.progress.skip(tokens * settings.epochs)
            if not self._evaluated(generalised):
                loaded = load_checkpoint(self.experiment, target)
        else:
            assert loaded is not None
            kept = {settings.epochs: target}
            newest = self._newest(stage, kept)
            self.progress.skip(tokens * (newest[0] if newest else 0))
            self._train(loaded, stage, f"Generalising from epoch {epoch}", sequences, settings, kept, newest)
        self._evaluate(generalised, loaded)

    def _newest(self, stage: str, kept: dict[int, Path]) -> tuple[int, Path] | None:
        """The newest whole checkpoint of a stage as (epoch, folder), or None."""
        found = [(e, path) for e, path in kept.items() if is_complete(path)]
        rolling = resume_folder(self.folder, stage)
        if is_complete(rolling):
            found.append((load_training_state(rolling).epoch, rolling))
        return max(found, default=None)

    def _train(
        self,
        loaded: LoadedModel,
        stage: str,
        words: str,
        sequences: list[TrainingSequence],
        settings: Any,
        kept: dict[int, Path],
        newest: tuple[int, Path] | None,
    ) -> None:
        start: TrainingState | None = None
        if newest:
            start = load_training_state(newest[1])
            add_event(self.db, self.run.id, "resumed", f"{words}: goes on after epoch {newest[0]}")
            logger.info("%s: goes on after epoch %d", stage, newest[0])
        saved_at = time.monotonic()
        steps_an_epoch = -(-len(sequences) // settings.batch_size)

        def on_step(report: StepReport) -> None:
            point = {"stage": stage, "step": report.step, "epoch": round(report.epoch, 4)}
            self.waiting.append({**point, "series": "loss", "value": report.loss})
            epoch = min(settings.epochs, -(-report.step // steps_an_epoch))
            self.progress.advance(
                PASSES_PER_TRAINED_TOKEN * report.tokens,
                stage=stage,
                epoch=epoch,
                epochs=settings.epochs,
                step=report.step,
                steps=report.steps,
                loss=round(report.loss, 4),
                message=f"{words}: epoch {epoch} of {settings.epochs}",
            )

        def on_epoch(epoch: int, trainer: Trainer) -> None:
            nonlocal saved_at
            if stage == "stage1" and self.experiment.evaluation.probe_facts:
                recall = probe_key_tokens(loaded, self.experiment, self.experiment.evaluation.probe_facts)
                point = {"stage": stage, "series": "probe", "step": epoch * steps_an_epoch, "epoch": float(epoch)}
                self.waiting.append({**point, "value": recall})
            if epoch in kept:
                trainer.save(kept[epoch])
                saved_at = time.monotonic()
                logger.info("%s: kept epoch %d", stage, epoch)
            elif time.monotonic() - saved_at > RESUME_EVERY_SECONDS:
                trainer.save(resume_folder(self.folder, stage))
                saved_at = time.monotonic()

        train(
            loaded, sequences, settings, seed=self.experiment.seed, stage=stage, start=start,
            on_step=on_step, on_epoch=on_epoch,
        )  # fmt: skip
        self._flush()

    def _evaluated(self, checkpoint: str) -> bool:
        return checkpoint in evaluated_checkpoints(self.answers)

    def _evaluate(self, checkpoint: str, loaded: LoadedModel | None) -> None:
        questions = count_questions(self.experiment, checkpoint)
        if self._evaluated(checkpoint):
            self.progress.skip(PASSES_PER_QUESTION * questions)
            answers = [Answer(**row) for row in all_answers(self.answers, checkpoint)]
        else:
            assert loaded is not None
            asked = 0

            def on_progress(done: int, total: int) -> None:
                nonlocal asked
                passes = PASSES_PER_QUESTION * questions * (done - asked) / max(1, total)
                asked = done
                message = f"Asking {checkpoint_words(checkpoint)}: question {done:,} of {total:,}"
                self.progress.advance(passes, stage="evaluation", checkpoint=checkpoint, message=message)

            started = time.monotonic()
            answers = evaluate_checkpoint(loaded, self.experiment, checkpoint, on_progress=on_progress)
            store_answers(self.answers, checkpoint, answers)
            logger.info("%s: %d questions in %.1f s", checkpoint, len(answers), time.monotonic() - started)
        rows = summarise(answers, self.experiment, checkpoint)
        replace_results(self.db, self.run.id, checkpoint, rows)

    def _write_progress(self, state: dict[str, Any]) -> None:
        """Store progress and measurements; raises StopTraining when someone asked for the run to stop."""
        self._flush()
        if set_progress(self.db, self.run.id, self.run.attempt, state) is State.STOPPING:
            raise StopTraining("cancelled")

    def _flush(self) -> None:
        if self.waiting:
            add_measurements(self.db, self.run.id, self.waiting)
            self.waiting = []

    def _total_passes(self, stage1: list[TrainingSequence], stage2: list[TrainingSequence]) -> float:
        trained = self.experiment.stage1.epochs * sum(len(s.input_ids) for s in stage1)
        branches = len(self.experiment.branch_epochs)
        trained += branches * self.experiment.stage2.epochs * sum(len(s.input_ids) for s in stage2)
        questions = sum(count_questions(self.experiment, name) for name in self.experiment.checkpoints)
        return PASSES_PER_TRAINED_TOKEN * trained + PASSES_PER_QUESTION * questions

    def _check_disk(self, loaded: LoadedModel) -> None:
        """Refuse to start what cannot be stored: weights and two moments for each checkpoint still to come."""
        each = sum(3 * p.numel() * p.element_size() for p in loaded.model.parameters() if p.requires_grad)
        names = self.experiment.checkpoints[1:]
        missing = sum(not is_complete(checkpoint_folder(self.folder, name)) for name in names)
        needed, free = each * missing, shutil.disk_usage(self.folder).free
        if needed > free:
            raise PlainError(
                f"The checkpoints need {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left: free some "
                "space, keep fewer checkpoints, or use LoRA, then retry."
            )


def checkpoint_words(checkpoint: str) -> str:
    """A checkpoint's name as it reads in a sentence."""
    name = CheckpointName.parse(checkpoint)
    if name.kind == BASE:
        return "the base model"
    return f"epoch {name.epoch} {'before' if name.kind == 'memorised' else 'after'} stage 2"
