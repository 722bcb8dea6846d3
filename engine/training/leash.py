"""A leash to the base: what is replayed is held to everything the base thought possible there, not to its words alone.

KL(base ‖ model) at the tokens that the base wrote, as the distillation in Learning without Forgetting (Li and Hoiem
2016, arXiv:1606.09282) and the KL term of RLHF (Ziegler et al. 2019, arXiv:1909.08593) hold a model to what it was. Not
the paper's. What the base says is computed once, before stage 1.
"""

from __future__ import annotations

from dataclasses import replace

from engine.models.loading import LoadedModel
from engine.training.batches import make_batch
from engine.training.loss import said_by
from engine.training.replay import LeashedText, Replayed

AT_ONCE = 16  # texts


def with_leash(base: LoadedModel, texts: Replayed) -> Replayed:
    """The texts with what the untrained `base` says at their labelled tokens."""
    held: list[LeashedText] = []
    for start in range(0, len(texts.sequences), AT_ONCE):
        part = texts.sequences[start : start + AT_ONCE]
        alone = [make_batch([text], base.device).learnt for text in part]
        said = said_by(base, make_batch(part, base.device)).cpu().split(alone)
        held += [LeashedText(s.input_ids, s.labels, rows) for s, rows in zip(part, said, strict=True)]
    return replace(texts, sequences=held)
