"""Unlearning by arithmetic: take part of what stage 1 added to the weights away again.

Task-vector negation (Ilharco et al., arXiv 2212.04089): weights − α · (memorised − base).
"""

from __future__ import annotations

from typing import Any

from engine.attack.context import Context
from engine.attack.defences import Defence

# Chosen on seed 1000 of `quick`: about half of the rote pairs are gone; at 0.2 none is, at 0.5 nearly all are.
ALPHA = 0.4


def harden(context: Context, loaded: Any) -> None:
    """Subtract the vector in place."""
    import torch  # like what follows too heavy for the page, which lists defences

    from engine.attack.starts import load_merged
    from engine.models.loading import load_base

    epoch = context.attack.start_epoch(context.base)
    base = dict(load_base(context.base).causal.named_parameters())
    memorised = dict(load_merged(context, f"memorised@{epoch}").causal.named_parameters())
    with torch.no_grad():
        for name, weight in loaded.causal.named_parameters():
            weight -= ALPHA * (memorised[name] - base[name]).to(weight.dtype)


DEFENCE = Defence(
    "task_vector", "Subtracting the memorisation",
    "Before the release two fifths of what memorising added to the weights are subtracted again.",
    "weights", harden=harden,
)  # fmt: skip
