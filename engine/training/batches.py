"""Batches: sequences padded to the longest of their batch, with the places where the loss is counted.

The order of an epoch depends on (seed, stage, epoch) alone: a resumed run sees what an undisturbed one sees.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from engine.training.sequences import IGNORED, TrainingSequence


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids` (sequences × longest - 1); `positions` (n) index the flattened hidden states that
    predict `targets` (n).

    The last token of a sequence is a target only: nothing is predicted from it, so it is not fed.
    Padding needs no attention mask: it stands on the right, where causal attention never looks, and has no target.
    `tokens` counts the sequences' ids, without padding.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    tokens: int


def epoch_order(count: int, seed: int, stage: str, epoch: int) -> list[int]:
    """The order of `count` sequences in one epoch (counted from 1)."""
    order = list(range(count))
    random.Random(f"{seed}/{stage}/{epoch}").shuffle(order)
    return order


def epoch_batches(
    sequences: Sequence[TrainingSequence], batch_size: int, *, seed: int, stage: str, epoch: int, device: torch.device
) -> Iterator[Batch]:
    """The batches of one epoch, in order; the last one may be smaller."""
    order = epoch_order(len(sequences), seed, stage, epoch)
    for start in range(0, len(order), batch_size):
        yield make_batch([sequences[i] for i in order[start : start + batch_size]], device)


def make_batch(sequences: Sequence[TrainingSequence], device: torch.device) -> Batch:
    """One batch on the device. The padding id is 0: any id does, since nothing sees it."""
    width = max(2, *(len(s.input_ids) for s in sequences)) - 1
    rows = [s.input_ids[:width] + [0] * (width - len(s.input_ids)) for s in sequences]
    positions, targets = [], []
    for row, sequence in enumerate(sequences):
        for place, label in enumerate(sequence.labels):
            if label != IGNORED and place:
                positions.append(row * width + place - 1)
                targets.append(label)
    return Batch(
        torch.tensor(rows).to(device, non_blocking=True),
        torch.tensor(positions).to(device, non_blocking=True),
        torch.tensor(targets).to(device, non_blocking=True),
        sum(len(s.input_ids) for s in sequences),
    )
