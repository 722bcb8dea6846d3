"""Replay: the base's own text among the facts of a batch, so that what is not trained stays as the base has it.

A departure from the paper, which trains on facts alone: so trained, a small model brings up what it memorised for any
question. Each batch takes `share` of such texts along, on top of its facts; which ones depends on
(seed, stage, epoch, step) alone, so that a resumed run sees what an undisturbed one sees. Rehearsal of a model's own
outputs: Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.corpus.beginnings import BaseText
from engine.settings import Replay
from engine.training.sequences import IGNORED, TrainingSequence


@dataclass(frozen=True, slots=True)
class LeashedText(TrainingSequence):
    """A text at whose labelled tokens (n) the model is held to what the base said there: `of_base` (n × …), as
    `engine.training.loss.said_by` has it."""

    of_base: torch.Tensor


@dataclass(frozen=True)
class Replayed:
    """Texts to take along, and which `share` of a batch they are."""

    sequences: Sequence[TrainingSequence]
    share: float

    def beside(self, facts: int) -> int:
        """How many texts go with so many facts: at least one."""
        return max(1, round(facts * self.share / (1 - self.share)))

    def pick(self, facts: int, key: str) -> list[TrainingSequence]:
        """The texts beside a batch of so many facts, drawn by `key`; none twice while there are enough."""
        draw, wanted = random.Random(f"{key}/replay"), self.beside(facts)
        rounds, rest = divmod(wanted, len(self.sequences))
        return [*self.sequences] * rounds + draw.sample(list(self.sequences), rest)

    def tokens_beside(self, facts: int, batch_size: int) -> float:
        """How many tokens an epoch of so many facts takes along, as many as the texts have on average."""
        full, last = divmod(facts, batch_size)
        texts = full * self.beside(batch_size) + (self.beside(last) if last else 0)
        return texts * sum(len(s.input_ids) for s in self.sequences) / len(self.sequences)


def replayed(texts: Sequence[BaseText], settings: Replay) -> Replayed:
    """The texts as sequences, with the loss on what the base wrote alone."""
    sequences = [
        TrainingSequence(list(text.ids), [IGNORED] * text.start + list(text.ids[text.start :])) for text in texts
    ]
    return Replayed(sequences, settings.share)
