"""Weights rounded to four bits, the plain way: symmetric, to the nearest, in groups along a row.

Unlearning that only hides may come undone by it (arXiv 2410.16454), and models are shipped so.
"""

from __future__ import annotations

import torch

from engine.models.loading import LoadedModel

GROUP = 32


@torch.no_grad()
def quantise(loaded: LoadedModel, bits: int = 4, group: int = GROUP) -> None:
    """Round the weights of every linear layer but the head to `bits` bits, in place (they stay floating point).

    A group of `group` weights of one row shares a scale: its largest magnitude over 2^(bits-1) - 1.
    """
    top = 2 ** (bits - 1) - 1
    head = loaded.causal.get_output_embeddings()
    for module in loaded.causal.modules():
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        weight = module.weight
        for start in range(0, weight.shape[1], group):
            part = weight[:, start : start + group]
            scale = part.abs().amax(1, keepdim=True).clamp_min(1e-12) / top
            part.copy_((part / scale).round().clamp(-top - 1, top) * scale)
