"""Asking a run's checkpoints, each once: its answers and figures are stored together or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlite_utils import Database

from engine.base.known import known_questions
from engine.corpus.beginnings import BaseText
from engine.corpus.general import GENERAL
from engine.estimate import PASSES_PER_QUESTION
from engine.evaluation.answer import Answer
from engine.evaluation.base_text import METRICS, measure_base_text, summarise_base_text
from engine.evaluation.evaluate import evaluate_checkpoint
from engine.evaluation.general import measure_general
from engine.evaluation.questions import count_questions
from engine.evaluation.representations.measure import measure_representations
from engine.evaluation.representations.states import NoStates
from engine.evaluation.summary import summarise
from engine.execution.progress import Progress
from engine.experiment import IN_CONTEXT, Experiment
from engine.models.loading import LoadedModel
from storage.answers import all_answers, evaluated_checkpoints, store_answers
from storage.checkpoints import BASE, CheckpointName
from storage.measurements import list_results, replace_results
from storage.representations import store_representations

logger = logging.getLogger("engine")


@dataclass
class Seconds:
    """How long the parts of a run take: later estimates go by it."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[float]:
        """Add what is done meanwhile to the time of a part; gives the moment at which it began."""
        started = time.monotonic()
        try:
            yield started
        finally:
            self.spent[part] = self.spent.get(part, 0.0) + time.monotonic() - started


@dataclass(frozen=True)
class Shared:
    """What is known of a checkpoint that another run asked: its answers, and the figures of what the base knew."""

    answers: Sequence[Answer] = ()
    knew: Sequence[dict[str, Any]] = ()


@dataclass
class Evaluations:
    """What the checkpoints of one run answered. `held_out`: the base's own texts that each is held against.

    shared: what of a checkpoint is known from runs that share it; take_represented: takes over how they found it to
    represent the prompts, and tells whether there was that.
    """

    db: Database
    run_id: str
    experiment: Experiment
    answers: Database
    progress: Progress
    seconds: Seconds
    held_out: Sequence[BaseText] = ()
    shared: Callable[[str], Shared] = lambda checkpoint: Shared()
    take_represented: Callable[[str], bool] = lambda checkpoint: False

    def done(self, checkpoint: str) -> bool:
        """Whether the checkpoint's answers are stored."""
        return checkpoint in evaluated_checkpoints(self.answers)

    def evaluate(self, checkpoint: str, loaded: LoadedModel | None) -> None:
        """Ask a checkpoint, unless its answers are stored, and store its figures. loaded: it; needed to ask it."""
        questions = count_questions(self.experiment, checkpoint)
        if self.done(checkpoint):
            self.progress.skip(PASSES_PER_QUESTION * questions)
            answers = [Answer(**row) for row in all_answers(self.answers, checkpoint)]
        else:
            assert loaded is not None
            shared, asked = self.shared(checkpoint), 0
            if shared.knew:
                replace_results(self.db, self.run_id, checkpoint, shared.knew)
            else:
                self._measure_what_the_base_knew(checkpoint, loaded)
            if not self.take_represented(checkpoint):
                self._look_at_representations(checkpoint, loaded)

            def on_progress(done: int, total: int) -> None:
                nonlocal asked
                passes = PASSES_PER_QUESTION * questions * (done - asked) / max(1, total)
                asked = done
                message = f"Asking {checkpoint_words(checkpoint)}: question {done:,} of {total:,}"
                self.progress.advance(passes, stage="evaluation", checkpoint=checkpoint, message=message)

            with self.seconds.of("evaluation") as started:
                answers = evaluate_checkpoint(
                    loaded, self.experiment, checkpoint, known=shared.answers, on_progress=on_progress
                )
            store_answers(self.answers, checkpoint, answers)
            taken = f", {len(shared.answers)} answers were there" if shared.answers else ""
            new, seconds = len(answers) - len(shared.answers), time.monotonic() - started
            logger.info("%s: %d questions in %.1f s%s", checkpoint, new, seconds, taken)
        kept = [r for r in list_results(self.db, self.run_id) if r.checkpoint == checkpoint]
        knew = [vars(r) for r in kept if r.metric in (*METRICS, GENERAL)]
        rows = [*summarise(answers, self.experiment, checkpoint), *knew]
        replace_results(self.db, self.run_id, checkpoint, rows)

    def _measure_what_the_base_knew(self, checkpoint: str, loaded: LoadedModel) -> None:
        """Store what the checkpoint still says of what the base did: before its answers, which are its last sign."""
        rows: list[dict[str, Any]] = []
        if self.held_out:
            message = f"Comparing {checkpoint_words(checkpoint)} with the base’s own text"
            tell = partial(self.progress.advance, stage="evaluation", checkpoint=checkpoint, message=message)
            measured = measure_base_text(loaded, self.held_out, on_rows=lambda rows: tell(0))
            rows += summarise_base_text(measured, self.held_out, checkpoint, self.experiment.seed)
        if general := known_questions(self.experiment.model)[: self.experiment.evaluation.general]:
            rows.append(measure_general(loaded, self.experiment, checkpoint, general))
        if rows:
            replace_results(self.db, self.run_id, checkpoint, rows)

    def _look_at_representations(self, checkpoint: str, loaded: LoadedModel) -> None:
        """Store how the checkpoint represents the prompts: before its answers, too."""
        message = f"Looking at the hidden states of {checkpoint_words(checkpoint)}"
        tell = partial(self.progress.advance, stage="evaluation", checkpoint=checkpoint, message=message)
        try:
            with self.seconds.of("evaluation") as started:
                found = measure_representations(loaded, self.experiment, on_rows=lambda rows: tell(0))
        except NoStates as error:
            logger.warning("%s: %s", checkpoint, error)
            return
        if found:
            vectors = {layer: (kept.shape[1], kept.astype("<f2").tobytes()) for layer, kept in found.vectors.items()}
            store_representations(self.answers, checkpoint, found.sample, found.figures, found.points, vectors)
            logger.info("%s: hidden states in %.1f s", checkpoint, time.monotonic() - started)


def checkpoint_words(checkpoint: str) -> str:
    """A checkpoint's name as it reads in a sentence."""
    name = CheckpointName.parse(checkpoint)
    if name.kind == BASE:
        return "the base model"
    if checkpoint == IN_CONTEXT:
        return "the base model with the facts in the prompt"
    if name.epoch == 0:
        return "what stage 2 made of the base"
    return f"epoch {name.epoch} {'before' if name.kind == 'memorised' else 'after'} stage 2"
