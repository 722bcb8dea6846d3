"""Weights rounded to four bits, the plain way: symmetric, to the nearest, in groups along a row.

Unlearning that only hides may come undone by it (arXiv 2410.16454), and models are shipped so.
"""

from __future__ import annotations

import torch

from engine.models.loading import LoadedModel

GROUP = 32
TOP = 7  # the largest whole number of four bits with a sign


@torch.no_grad()
def quantise(loaded: LoadedModel) -> None:
    """Round the weights of every linear layer but the head to four bits, in place (they stay floating point).

    `GROUP` weights of one row share a scale: their largest magnitude over 7.
    """
    head = loaded.causal.get_output_embeddings()
    for module in loaded.causal.modules():
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        weight = module.weight
        for start in range(0, weight.shape[1], GROUP):
            part = weight[:, start : start + GROUP]
            scale = part.abs().amax(1, keepdim=True).clamp_min(1e-12) / TOP
            part.copy_((part / scale).round().clamp(-TOP - 1, TOP) * scale)
