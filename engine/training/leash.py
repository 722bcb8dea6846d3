"""A leash to the base: what is replayed is held to everything the base thought possible there, not to its words alone.

KL(base ‖ model) at the tokens that the base wrote, as the distillation in Learning without Forgetting (Li and Hoiem
2016, arXiv:1606.09282) and the KL term of RLHF (Ziegler et al. 2019, arXiv:1909.08593) hold a model to what it was. Not
the paper's. What the base says is computed once, before stage 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.models.loading import LoadedModel
from engine.training.batches import make_batch
from engine.training.loss import has_large_head, said_by
from engine.training.replay import LeashedText, Replayed
from engine.training.sequences import IGNORED

AT_ONCE = 16  # texts
MOST_BYTES = 2_000_000_000  # of what the base says, all of which stays in memory


def with_leash(base: LoadedModel, texts: Replayed) -> Replayed:
    """The texts with what the untrained `base` says at their labelled tokens.

    Raises ValueError where that would fill the memory.
    """
    counts = [sum(label != IGNORED for label in text.labels[1:]) for text in texts.sequences]
    head: Any = base.causal.get_output_embeddings()
    needed = 4 * sum(counts) * head.weight.shape[1 if has_large_head(base.causal) else 0]
    if needed > MOST_BYTES:
        raise ValueError(
            f"a leash at {sum(counts):,} tokens of replayed text takes {needed / 1e9:.1f} GB of memory, more than "
            f"{MOST_BYTES / 1e9:.0f}: replay fewer or shorter texts, or leave out replay.leash"
        )
    held: list[LeashedText] = []
    for start in range(0, len(texts.sequences), AT_ONCE):
        part = texts.sequences[start : start + AT_ONCE]
        said = said_by(base, make_batch(part, base.device)).cpu().split(counts[start : start + AT_ONCE])
        held += [LeashedText(s.input_ids, s.labels, rows) for s, rows in zip(part, said, strict=True)]
    return replace(texts, sequences=held)
