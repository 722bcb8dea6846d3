"""The training loop of both stages: small, fast on short sequences, and the same bits again after a resume.

    train(loaded, stage1_sequences(experiment, loaded), experiment.stage1, seed=0, stage="stage1",
          on_step=print, on_epoch=lambda epoch, trainer: trainer.save(folder))

What it does is the paper's: AdamW without weight decay, gradients clipped, the mean loss over a batch's labelled
tokens. With `mixed`, as in the paper's code, weights, gradients and optimizer state are float32, products are computed
in bfloat16, and checkpoints hold the weights in the model's own number format; without, all are in that format.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.models.loading import LoadedModel
from engine.settings import Optimisation, OptimizerName
from engine.training.background import Writer, is_worth_it
from engine.training.batches import Batch, epoch_batches
from engine.training.checkpoint import TrainingState, restore, save_checkpoint
from engine.training.layers import freeze_the_rest
from engine.training.loss import FrozenHead, labelled_loss
from engine.training.masters import master_weights
from engine.training.optimizers import TrainingError, make_optimizer, take_step
from engine.training.replay import LeashedText, Replayed
from engine.training.sequences import TrainingSequence

# Kept checkpoints hold no optimizer state of more bytes than this; the rolling one does. A small one stays: should a
# later checkpoint be damaged, it is made again from here instead of from the start.
LARGE_STATE = 100_000_000


class StopTraining(Exception):
    """Raised by `on_step` or `on_epoch` to end the training at once; `train` lets it through."""


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: `step` of `steps` (from 1), `epoch` done so far with its fraction, the mean `loss` in nats
    per labelled token before the step, the `learning_rate` it was taken with, and the batch's `tokens` (no padding).

    With replay, `loss` is of the facts alone, `replay_loss` of what is replayed beside them.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    tokens: int
    replay_loss: float | None = None


def learning_rate_at(step: int, steps: int, settings: Optimisation) -> float:
    """The rate of optimizer step `step` (from 0) of `steps`.

    Linear warm-up that reaches the full rate at its last step, then constant, or half a cosine to 0. transformers'
    warm-up begins with a step at rate 0; ours does not waste it, since k=1 has only 8 steps in all.
    """
    warm = settings.warmup_steps
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(
    loaded: LoadedModel,
    sequences: Sequence[TrainingSequence],
    settings: Optimisation,
    *,
    seed: int,
    stage: str,
    start: TrainingState | None = None,
    on_step: Callable[[StepReport], None],
    on_epoch: Callable[[int, Trainer], None],
    penalty: Callable[[int], torch.Tensor] | None = None,
    replay: Replayed | None = None,
    mixed: bool = False,
    optimizer: OptimizerName = "adamw",
    trainer_class: type[Trainer] | None = None,
) -> None:
    """Train `loaded` in place for `settings.epochs`, or for those that are left after `start`.

    With `start`, weights and optimizer state are first restored from its folder; on a CPU the result is then bit for
    bit that of an undisturbed run. `on_epoch(epoch, trainer)` is called after each epoch (from 1), with the model in
    evaluation mode; `trainer.save(folder)` writes a checkpoint. `penalty(step)`, a differentiable number, is added to
    the loss of each step; each batch takes some of `replay` along. `mixed`: products are computed in bfloat16, over
    weights in float32. `trainer_class`: `engine.training.sharded.ShardedTrainer`, in each of several processes that
    train one model together. Raises TrainingError when the loss is no longer a number or `start` does not fit, and
    whatever the callbacks raise.
    """
    kind = trainer_class or Trainer
    with (
        master_weights(loaded, wanted=mixed and not kind.shards),
        freeze_the_rest(loaded, settings, apart=not kind.shards) as rows_only,
        checkpointed(loaded, settings.gradient_checkpointing),
    ):
        trainer = kind(loaded, sequences, settings, seed=seed, stage=stage, mixed=mixed, optimizer=optimizer)
        trainer.penalty, trainer.replay, trainer.rows_only = penalty, replay, rows_only
        if start is not None:
            trainer.resume(start)
        try:
            trainer.run(on_step, on_epoch)
        finally:
            loaded.model.eval()
            trainer.optimizer.zero_grad(set_to_none=True)
            if trainer.writer is not None:
                trainer.writer.wait()


class Trainer:
    """One stage's training: the model, its optimizer, and how far it is (`epoch`, `step`)."""

    shards = False  # whether each process holds but a part of the weights

    def __init__(
        self,
        loaded: LoadedModel,
        sequences: Sequence[TrainingSequence],
        settings: Optimisation,
        *,
        seed: int,
        stage: str,
        mixed: bool = False,
        optimizer: OptimizerName = "adamw",
    ) -> None:
        self.loaded, self.sequences, self.settings, self.seed, self.stage = loaded, sequences, settings, seed, stage
        self.steps_per_epoch = math.ceil(len(sequences) / settings.batch_size)
        self.epoch = self.step = 0
        self.penalty: Callable[[int], torch.Tensor] | None = None
        self.replay: Replayed | None = None
        self.rows_only: dict[str, list[int]] = {}
        self.mixed = mixed
        self.at_once = settings.micro_batch_size
        self.parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        if loaded.key_rows is not None:
            self.parameters += loaded.key_rows.parameters.values()
        if not sequences or not self.parameters:
            raise TrainingError(
                "there is nothing to train: the stage has no sequences, or every weight is frozen "
                "(trained_layers, trained_weights?)"
            )
        self.optimizer = make_optimizer(self.parameters, optimizer, settings.learning_rate)
        self.head: FrozenHead | None = None
        self.writer = Writer() if is_worth_it(loaded) and not self.shards else None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        return self.steps_per_epoch * self.settings.epochs

    def save(self, folder: Path, *, kept: bool = False) -> bool:
        """Write a checkpoint in place of an older one; returns whether a training can go on from it.

        kept: for good, so without an optimizer state that is a large one. On an accelerator it is on the disk by the
        next call, or the end of `train`. Raises OSError when the disk is full; the older one is still there then.
        """
        state = sum(2 * p.numel() * p.element_size() for p in self.parameters)
        optimizer = None if kept and state >= LARGE_STATE else self.optimizer
        save_checkpoint(
            folder, self.loaded, optimizer, stage=self.stage, epoch=self.epoch, step=self.step, writer=self.writer
        )
        return optimizer is not None

    def resume(self, start: TrainingState) -> None:
        """Restore weights, optimizer state and place. Raises TrainingError or ModelError."""
        if (start.stage, start.step) != (self.stage, start.epoch * self.steps_per_epoch):
            raise TrainingError(
                f"the checkpoint in {start.folder} belongs to another training (stage {start.stage}, "
                f"epoch {start.epoch}, step {start.step}): delete it and train again"
            )
        self._restore(start)
        self.epoch, self.step = start.epoch, start.step

    def _restore(self, start: TrainingState) -> None:
        restore(start, self.loaded, self.optimizer)

    def run(self, on_step: Callable[[StepReport], None], on_epoch: Callable[[int, Trainer], None]) -> None:
        """Train the epochs that are left."""
        self.head = None if self.shards else FrozenHead.of(self.loaded, self.mixed)
        first = self.replay.sequences[0] if self.replay else None
        if isinstance(first, LeashedText) and self.head is None and not self._says_as_much_as(first):
            raise TrainingError(
                "a leash to the base needs the embedding matrices of so large a model as they were: set embeddings to "
                "‘key tokens’, use LoRA on other modules, or leave out replay.leash"
            )
        while self.epoch < self.settings.epochs:
            self._run_epoch(self.epoch + 1, on_step)
            self.epoch += 1
            self.loaded.model.eval()
            on_epoch(self.epoch, self)

    def _says_as_much_as(self, text: LeashedText) -> bool:
        """Whether what the base said is there for every token of the vocabulary, not as states before its head."""
        head: Any = self.loaded.causal.get_output_embeddings()
        return bool(text.of_base.shape[1] == head.weight.shape[0])

    def _run_epoch(self, epoch: int, on_step: Callable[[StepReport], None]) -> None:
        # Only LoRA's dropout draws from torch. Seeded anew for each epoch, so that evaluations between epochs, or a
        # resume, change nothing.
        torch.manual_seed(_number(f"{self.seed}/{self.stage}/{epoch}"))
        self.loaded.model.train()
        batches = epoch_batches(
            self.sequences,
            self.settings.batch_size,
            seed=self.seed,
            stage=self.stage,
            epoch=epoch,
            device=self.loaded.device,
            replay=self.replay,
            at_once=self.at_once,
        )
        for parts in batches:
            rate = learning_rate_at(self.step, self.steps, self.settings)
            loss, replayed = self._train_step(parts, rate)
            self.step += 1
            done, tokens = self.step / self.steps_per_epoch, sum(part.tokens for part in parts)
            on_step(StepReport(self.step, self.steps, done, loss, rate, tokens, replayed))

    def _train_step(self, parts: list[Batch], rate: float) -> tuple[float, float | None]:
        loss, apart = self._add_gradients(parts)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = self._gradient_norm(gradients)
        value, length, *told = torch.stack([loss, norm.float(), *apart]).tolist()
        if not (math.isfinite(value) and math.isfinite(length)):
            raise TrainingError(
                f"the training loss is no longer a number (step {self.step + 1} of {self.steps}): "
                f"lower the learning rate of {self.settings.learning_rate:g}, or lengthen the warm-up"
            )
        if length > self.settings.max_gradient_norm:
            self._clip(norm)
        take_step(self.optimizer, rate, self.loaded.device)
        if self.loaded.key_rows is not None:
            self.loaded.key_rows.write()
        self.optimizer.zero_grad(set_to_none=True)
        return (told[0], told[1]) if told else (value, None)

    def _gradient_norm(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.get_total_norm(gradients)

    def _clip(self, norm: torch.Tensor) -> None:
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.max_gradient_norm, norm)

    def _add_gradients(self, parts: list[Batch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Compute the gradients of a batch. Gives its loss; with replay also those of facts and replayed texts apart.

        Each part counts by its labelled tokens, so that the sum is the mean over all of them.
        """
        whole, losses = sum(len(part.targets) for part in parts), []
        learnt: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for place, part in enumerate(parts):
            with torch.autocast(self.loaded.device.type, torch.bfloat16, enabled=self.mixed):
                loss, each = labelled_loss(self.loaded, part, self.head, each=self.replay is not None)
                if len(parts) > 1:
                    loss = loss * (len(part.targets) / whole)
                if self.penalty is not None and place == 0:
                    loss = loss + self.penalty(self.step)
            if each is not None:
                for found, values in zip(learnt, each.tensor_split([part.learnt]), strict=True):
                    found.append(values)
            loss.backward()
            losses.append(loss.detach().float())
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return total, [torch.cat(found).mean() for found in learnt] if learnt[0] else []


@contextmanager
def checkpointed(loaded: LoadedModel, wanted: bool) -> Iterator[None]:
    """Within the block layers keep only what they were given, and compute the rest again on the way back."""
    if wanted:
        # The other kind would lose the gradients of adapters on a frozen base.
        loaded.causal.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        if wanted:
            loaded.causal.gradient_checkpointing_disable()


def _number(text: str) -> int:
    """A seed for torch from text; the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
