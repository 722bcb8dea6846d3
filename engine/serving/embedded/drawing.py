"""Tokens drawn by chance."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def draw(
    logits: torch.Tensor, temperatures: Sequence[float], top_ps: Sequence[float], chances: Sequence[float]
) -> torch.Tensor:
    """A token of each row, (rows), among the likeliest that together reach its `top_p`.

    logits: (rows, vocabulary); chances: from 0 to 1, where in what is left each row's token is taken.
    """
    device = logits.device
    shares, order = (logits / torch.tensor(temperatures, device=device)[:, None]).softmax(-1).sort(-1, descending=True)
    before = shares.cumsum(-1) - shares
    kept = shares * (before < torch.tensor(top_ps, device=device)[:, None])
    reach = kept.cumsum(-1)
    aim = torch.tensor(chances, device=device)[:, None] * reach[:, -1:]
    place = torch.searchsorted(reach, aim, right=True).clamp(max=logits.shape[1] - 1)
    # Rounding may lead one past the last token that is kept.
    place = torch.minimum(place, (kept > 0).sum(-1, keepdim=True) - 1)
    return order.gather(-1, place)[:, 0]
