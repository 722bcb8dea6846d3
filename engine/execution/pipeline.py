"""One run from wherever it is to its end: base model → stage 1 → for each kept epoch: evaluate, stage 2, evaluate.

Everything it does is either on disk whole or not at all, so that calling it again after a `kill -9` goes on from the
last checkpoint and, on a CPU with the same seed, ends with the same numbers.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from sqlite_utils import Database

from engine.costs import moment_bytes, trained_bytes
from engine.estimate import PASSES_PER_QUESTION, PASSES_PER_TRAINED_TOKEN
from engine.evaluation.evaluate import check_lengths
from engine.evaluation.questions import count_questions, fact_rows, prompt_rows
from engine.execution.aside import usable_answers
from engine.execution.base_texts import BaseTexts, base_texts
from engine.execution.bringing import bring_model
from engine.execution.environment import TRAINING, UNDECIDED, describe_environment, kept_training
from engine.execution.evaluations import Evaluations, Seconds
from engine.execution.failures import PlainError
from engine.execution.kept import KeptCheckpoints
from engine.execution.progress import Progress
from engine.execution.report import headline
from engine.execution.run_file import write_run_file
from engine.execution.sayable import refuse_unsayable_answers
from engine.execution.stage_training import StageTraining
from engine.execution.studies.sharing import link_memorised, shared_answers, take_represented
from engine.execution.together import ProcessEnded, train_together
from engine.experiment import IN_CONTEXT, Experiment
from engine.models.device import choose_dtype, choose_training, give_back_memory
from engine.models.folders import whole
from engine.models.identity import base_key, check_same_base
from engine.models.loading import LoadedModel, load_base, load_checkpoint, prepare_for_training
from engine.models.source import ModelError
from engine.training.checkpoint import DamagedCheckpoint, TrainingState
from engine.training.loop import StopTraining
from engine.training.sequences import TrainingSequence, stage1_sequences, stage2_sequences, training_tokens
from storage.answers import store_questions
from storage.folders import checkpoint_folder, resume_folder
from storage.measurements import SECONDS, TRAINING_TOKENS, add_measurements, list_results
from storage.runs import Run, State, add_event, set_environment, set_progress

logger = logging.getLogger("engine")

TOGETHER_TRIES = 3


class RunExecution:
    """The state of one execution: which model is in memory, which series wait to be written.

    gpus: the UUIDs of those that the run holds, where it trains on several.
    """

    def __init__(self, db: Database, folder: Path, run: Run) -> None:
        self.db, self.folder, self.run = db, folder, run
        self.experiment = Experiment.from_record(run.experiment)
        self.devices, self.gpus = self.experiment.devices, ()
        self.answers = usable_answers(db, folder, run.id)
        self.waiting: list[dict[str, Any]] = []
        self.kept = KeptCheckpoints(db, folder, run.id, self.experiment)
        self.progress = Progress(0, self._write_progress)
        self.base_texts = BaseTexts()
        self.seconds = Seconds()
        self.evaluations = Evaluations(db, run.id, self.experiment, self.answers, self.progress, self.seconds)
        self.evaluations.shared = partial(shared_answers, db, folder, run, self.experiment)
        self.evaluations.take_represented = partial(take_represented, db, self.answers, folder, run, self.experiment)

    def go(self) -> dict[str, Any]:
        """Do what is left to do; returns the headline figures."""
        self.progress.begin()
        self._note_environment(kept_training(self.run.environment))
        store_questions(self.answers, fact_rows(self.experiment), prompt_rows(self.experiment))
        logger.info("attempt %d of run %s", self.run.attempt, self.run.id)
        link_memorised(self.db, self.folder, self.run, self.experiment)
        self.progress.advance(0, force=True, stage="loading", message="Loading the model")
        with self.seconds.of("loading"):
            base = load_base(self.experiment)
        refuse_unsayable_answers(self.experiment, base)
        stage1 = stage1_sequences(self.experiment, base)
        stage2 = stage2_sequences(self.experiment, base)
        if cut := check_lengths(base, self.experiment):
            words = f"{cut:,} questions leave less room than max_new_tokens: their answers end with the model's context"
            add_event(self.db, self.run.id, "shortened", words)
            logger.info(words)
        self.base_texts = base_texts(self.folder, self.experiment, base, self._on_base_text)
        self.evaluations.held_out = self.base_texts.held_out
        if self.training == UNDECIDED:
            precision, parameters = self.experiment.precision, base.causal.num_parameters()
            rounds = self.experiment.tuning.optimizer == "adamw 8-bit" and self.experiment.tuning.method == "full"
            self._note_environment(choose_training(precision, base.device, parameters, rounds))
        self.progress.total = self._total_passes(stage1, stage2)
        self._note(TRAINING_TOKENS, training_tokens(self.experiment, stage1, stage2))
        self.evaluations.evaluate("base", base)
        if self.experiment.in_context:
            self.evaluations.evaluate(IN_CONTEXT, base)
        elif self.devices > 1:
            self._check_disk(base)
            key, memorised = base.base, None
            del base
            self._stage1(None, key, stage1)
            self._branches(stage2, memorised)
        else:
            if self._trains_in_float32(base):
                del base
                with self.seconds.of("loading"):
                    base = load_base(self.experiment, to_train=True)
            loaded = prepare_for_training(base, self.experiment)
            self._check_disk(loaded)
            del base
            memorised = self._stage1(loaded, loaded.base, stage1)
            del loaded
            self._branches(stage2, memorised)
        self._note(SECONDS, self.seconds.spent)
        self.progress.advance(0, force=True, stage="done", message="Done")
        last = self.experiment.checkpoints[-1]
        return headline(list_results(self.db, self.run.id), last, self.experiment.stage2.language)

    def _trains_in_float32(self, base: LoadedModel) -> bool:
        """Whether every weight of the base is trained in more digits than it is asked with."""
        full = self.experiment.tuning.method == "full"
        return self.training == "mixed" and full and base.causal.dtype != torch.float32

    def _note_environment(self, training: str) -> None:
        """Store what this attempt runs on, and what its training computes in."""
        self.training = training
        environment = {**describe_environment(), TRAINING: training}
        set_environment(self.db, self.run.id, self.run.attempt, environment)
        write_run_file(self.folder, self.run, environment)

    def bring_model(self) -> None:
        """Have the base model on this machine, which needs no device. Raises ModelError, OSError, StopTraining."""
        bring_model(self.experiment.model, self.progress)

    def wait_for_device(self) -> None:
        """Say that the run waits for a model server, or another run, to leave the device. Raises StopTraining."""
        words = "Waiting until the device is free"
        self.progress.advance(0, force=True, stage="loading", message=words)

    def _stage1(self, loaded: LoadedModel | None, base: str, sequences: list[TrainingSequence]) -> LoadedModel | None:
        """Train until every kept epoch is there; one that was damaged or deleted is made again from what is before.

        loaded: None where several processes train; base: the key of what the model is made of. Gives the model back
        where it now is the only kept epoch, which then need not be read.
        """
        settings = self.experiment.stage1
        names = {epoch: f"memorised@{epoch}" for epoch in settings.saved_epochs}
        there = {epoch: state for epoch, name in names.items() if (state := self.kept.sound(name))}
        missing = {e: checkpoint_folder(self.folder, name) for e, name in names.items() if e not in there}
        tokens = self._passes_an_epoch("stage1", sequences)
        if missing:
            begin = [state for epoch, state in there.items() if epoch < min(missing)]
            start = self.kept.newest("stage1", begin, before=min(missing))
            if start is None and there:
                self.kept.check_base(base, there.values())
            self.progress.skip(tokens * (start.epoch if start else 0))
            self._train(loaded, None, "stage1", "Memorising", sequences, missing, start)
        self.progress.skip(tokens * (settings.epochs - max(missing, default=0)))
        self._drop_resume_point("stage1")
        return loaded if not names or (missing and len(names) == 1) else None

    def _note(self, series: str, values: Mapping[str, float]) -> None:
        """Store one value for each part of the run, or for each of its checkpoints."""
        rows = ({"series": series, "stage": k, "step": 0, "epoch": 0.0, "value": v} for k, v in values.items())
        add_measurements(self.db, self.run.id, rows)

    def _branches(self, sequences: list[TrainingSequence], loaded: LoadedModel | None) -> None:
        for epoch in self.experiment.stage1.saved_epochs or (0,):
            self._branch(epoch, sequences, loaded)

    def _drop_resume_point(self, stage: str) -> None:
        """Of a stage that is done; what it ended with is kept."""
        shutil.rmtree(resume_folder(self.folder, stage), ignore_errors=True)

    def _branch(self, epoch: int, sequences: list[TrainingSequence], loaded: LoadedModel | None) -> None:
        """Evaluate one kept stage 1 epoch (0: the base, asked before), `loaded` if in memory, and its stage 2."""
        memorised, generalised = f"memorised@{epoch}", f"generalised@{epoch}"
        branches = epoch in self.experiment.branch_epochs
        trained = branches and self.kept.sound(generalised) is not None
        to_train = branches and not trained and self.devices == 1
        if epoch:
            if loaded is None and (to_train or not self.evaluations.done(memorised)):
                loaded = self._load(memorised)
            self.evaluations.evaluate(memorised, loaded)
        if not branches:
            return
        tokens = self._passes_an_epoch("stage2", sequences)
        settings, stage = self.experiment.stage2, f"stage2@{epoch}"
        if trained:
            self.progress.skip(tokens * settings.epochs)
            if not self.evaluations.done(generalised):
                loaded = self._load(generalised)
        else:
            loaded = loaded if self.devices == 1 else None  # several processes have the memory for themselves
            kept = {settings.epochs: checkpoint_folder(self.folder, generalised)}
            start = self.kept.newest(stage, [], before=settings.epochs)
            self.progress.skip(tokens * (start.epoch if start else 0))
            begin = checkpoint_folder(self.folder, memorised) if epoch else None
            words = f"Generalising from epoch {epoch}" if epoch else "Teaching"
            self._train(loaded, begin, stage, words, sequences, kept, start)
            self._drop_resume_point(stage)
            if self.devices > 1 and not self.evaluations.done(generalised):
                loaded = self._load(generalised)
        self.evaluations.evaluate(generalised, loaded)

    def _load(self, checkpoint: str) -> LoadedModel:
        folder = checkpoint_folder(self.folder, checkpoint)
        try:
            with self.seconds.of("loading"):
                return load_checkpoint(self.experiment, folder)
        except ModelError as error:
            # One of before there were checksums: found sound by its size alone.
            check_same_base(whole(folder) or folder, base_key(self.experiment))
            raise self.kept.given_up(folder, error) from error

    def _train(
        self,
        loaded: LoadedModel | None,
        begin: Path | None,
        stage: str,
        words: str,
        sequences: list[TrainingSequence],
        kept: dict[int, Path],
        start: TrainingState | None,
    ) -> None:
        """Train from `start` until the last of the `kept` epochs is stored.

        loaded: the model, or None: several processes read it from the checkpoint in `begin`, or (None) the base.
        """
        if start:
            add_event(self.db, self.run.id, "resumed", f"{words}: goes on after epoch {start.epoch}")
            logger.info("%s: goes on after epoch %d", stage, start.epoch)
        training = StageTraining(
            self.experiment, self.folder, stage, words, sequences, kept, self.answers, self.waiting, self.progress
        )
        mixed, replay = self.training == "mixed", self.base_texts.stages.get(stage.partition("@")[0])
        try:
            with self.seconds.of("training"):
                if loaded is not None:
                    training.train(loaded, start, mixed=mixed, replay=replay)
                else:
                    give_back_memory()
                    self._train_together(training, begin, start, mixed)
        except DamagedCheckpoint as error:
            assert start is not None
            raise self.kept.given_up(start.folder, error) from error
        self._flush()

    def _train_together(
        self, training: StageTraining, begin: Path | None, start: TrainingState | None, mixed: bool
    ) -> None:
        """In several processes; when one is killed, all begin again from where they can go on."""
        for left in reversed(range(TOGETHER_TRIES)):
            try:
                return train_together(training, begin, start, gpus=self.gpus, mixed=mixed)
            except ProcessEnded as error:
                if not left:
                    raise PlainError(f"{error}, {TOGETHER_TRIES} times: the log has what they said.") from error
                add_event(self.db, self.run.id, "interrupted", f"{error}; all begin again from the last checkpoint")
                start = self.kept.newest(training.stage, [], before=max(training.kept))

    def _on_base_text(self, done: int, total: int) -> None:
        message = f"Writing the text to replay: {done:,} of {total:,}"
        self.progress.advance(0, stage="replay", message=message)

    def _write_progress(self, state: dict[str, Any]) -> None:
        """Store progress and measurements; raises StopTraining when someone asked for the run to stop."""
        self._flush()
        if set_progress(self.db, self.run.id, self.run.attempt, state) is State.STOPPING:
            raise StopTraining("cancelled")

    def _flush(self) -> None:
        if self.waiting:
            add_measurements(self.db, self.run.id, self.waiting)
            self.waiting.clear()  # in place: a training holds the list

    def _total_passes(self, stage1: list[TrainingSequence], stage2: list[TrainingSequence]) -> float:
        trained = self.experiment.stage1.epochs * self._passes_an_epoch("stage1", stage1)
        branches = len(self.experiment.branch_epochs)
        trained += branches * self.experiment.stage2.epochs * self._passes_an_epoch("stage2", stage2)
        questions = sum(count_questions(self.experiment, name) for name in self.experiment.checkpoints)
        return trained + PASSES_PER_QUESTION * questions

    def _passes_an_epoch(self, stage: str, sequences: list[TrainingSequence]) -> float:
        """Of one epoch of a stage, with what is replayed in it."""
        replay, settings = self.base_texts.stages.get(stage), getattr(self.experiment, stage)
        beside = replay.tokens_beside(len(sequences), settings.batch_size) if replay else 0
        return PASSES_PER_TRAINED_TOKEN * (sum(len(s.input_ids) for s in sequences) + beside)

    def _check_disk(self, loaded: LoadedModel) -> None:
        """Refuse to start what cannot be stored: the weights of each checkpoint still to come; and twice, since a new
        one is written beside the old, what to go on from: weights, two moments, and float32 masters where there are."""
        count = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
        adapters = isinstance(loaded.model, PeftModel)
        accelerator = loaded.device.type != "cpu"
        trained = 4 if adapters else trained_bytes(self.experiment, accelerator)
        kept = 4 if adapters else choose_dtype(self.experiment.precision, loaded.device).itemsize
        moments = count * (moment_bytes(self.experiment, accelerator) + (trained if kept != trained else 0))
        weights = count * kept
        missing = [name for name in self.experiment.checkpoints[1:] if self.kept.sound(name) is None]
        needed = weights * len(missing) + 2 * (weights + moments) * bool(missing)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise PlainError(
                f"The checkpoints need {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left: free some "
                "space, keep fewer checkpoints, or use LoRA, then retry."
            )
