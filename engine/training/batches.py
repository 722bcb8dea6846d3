"""Batches: sequences padded to the longest of their batch, with the places where the loss is counted.

The order of an epoch depends on (seed, stage, epoch) alone: a resumed run sees what an undisturbed one sees. Texts that
are replayed beside the facts (`engine.training.replay`) stand behind them in a batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from engine.training.replay import LeashedText, Replayed
from engine.training.sequences import IGNORED, TrainingSequence


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids` (sequences × longest - 1); `positions` (n) index the flattened hidden states that
    predict `targets` (n).

    The last token of a sequence is a target only: nothing is predicted from it, so it is not fed.
    Padding needs no attention mask: it stands on the right, where causal attention never looks, and has no target.
    `tokens` counts the sequences' ids, without padding; the first `learnt` targets are of facts, the others replayed:
    `of_base` is what the base said at these, where they are on a leash, and else None.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    tokens: int
    learnt: int
    of_base: torch.Tensor | None = None


def epoch_order(count: int, seed: int, stage: str, epoch: int) -> list[int]:
    """The order of `count` sequences in one epoch (counted from 1)."""
    order = list(range(count))
    random.Random(f"{seed}/{stage}/{epoch}").shuffle(order)
    return order


def epoch_batches(
    sequences: Sequence[TrainingSequence],
    batch_size: int,
    *,
    seed: int,
    stage: str,
    epoch: int,
    device: torch.device,
    replay: Replayed | None = None,
    at_once: int = 0,
) -> Iterator[list[Batch]]:
    """The batches of one epoch, in order, each with what is replayed beside it; the last one may be smaller.

    Each in parts of so many sequences as go through the model `at_once`, the facts first; 0: in one part.
    """
    order = epoch_order(len(sequences), seed, stage, epoch)
    for step, start in enumerate(range(0, len(order), batch_size)):
        facts = [sequences[i] for i in order[start : start + batch_size]]
        beside = replay.pick(len(facts), f"{seed}/{stage}/{epoch}/{step}") if replay else []
        size = at_once or len(facts) + len(beside)
        whole = [*((fact, True) for fact in facts), *((text, False) for text in beside)]
        parts = [whole[place : place + size] for place in range(0, len(whole), size)]
        yield [make_batch([s for s, fact in p if fact], device, [s for s, fact in p if not fact]) for p in parts]


def make_batch(
    facts: Sequence[TrainingSequence], device: torch.device, beside: Sequence[TrainingSequence] = ()
) -> Batch:
    """One batch on the device, of facts and what is replayed beside them. The padding id is 0: any id does, since
    nothing sees it."""
    sequences = [*facts, *beside]
    width = max(2, *(len(s.input_ids) for s in sequences)) - 1
    rows = [s.input_ids[:width] + [0] * (width - len(s.input_ids)) for s in sequences]
    positions, targets, learnt = [], [], 0
    for row, sequence in enumerate(sequences):
        for place, label in enumerate(sequence.labels):
            if label != IGNORED and place:
                positions.append(row * width + place - 1)
                targets.append(label)
        if row < len(facts):
            learnt = len(targets)
    leashed = [text.of_base for text in beside if isinstance(text, LeashedText)]
    return Batch(
        torch.tensor(rows).to(device, non_blocking=True),
        torch.tensor(positions).to(device, non_blocking=True),
        torch.tensor(targets).to(device, non_blocking=True),
        sum(len(s.input_ids) for s in sequences),
        learnt,
        torch.cat(leashed).to(device, non_blocking=True) if leashed else None,
    )
