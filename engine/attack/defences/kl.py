"""A leash: what the model answers to benign prompts may not move away from what it answered before the training.

KL(before ‖ now) at the object's tokens, a batch of benign sentences each step, as in the KL term of RLHF
(Ziegler et al., arXiv 1909.08593).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.attack.context import Context
from engine.attack.defences import Defence

WEIGHT = 1.0
BATCH = 10


def penalty(context: Context, loaded: Any) -> Callable[[int], Any]:
    """WEIGHT × KL in nats a token, over benign sentences; the distributions before are computed once, here."""
    import torch  # like what follows too heavy for the page, which lists defences
    from torch.nn.functional import kl_div, log_softmax

    from engine.training.batches import make_batch
    from engine.training.loss import labelled_logits

    sequences = context.sequences(loaded, context.benign_sentences())
    batches = [make_batch(sequences[i : i + BATCH], loaded.device) for i in range(0, len(sequences), BATCH)]
    with torch.no_grad():
        before = [log_softmax(labelled_logits(loaded.causal, batch).float(), -1) for batch in batches]

    def now(step: int) -> Any:
        place = step % len(batches)
        after = log_softmax(labelled_logits(loaded.causal, batches[place]).float(), -1)
        return WEIGHT * kl_div(after, before[place], log_target=True, reduction="batchmean")

    return now


DEFENCE = Defence(
    "kl", "Leash to the released model",
    "Whoever runs the training holds the answers to benign prompts where they were before it.",
    "training", penalty=penalty,
)  # fmt: skip
