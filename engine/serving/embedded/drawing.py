"""Tokens drawn by chance."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# All tokens are equally likely long before, and a larger one may count as infinite.
HOTTEST = 1e30


def draw(
    logits: torch.Tensor, temperatures: Sequence[float], top_ps: Sequence[float], chances: Sequence[float]
) -> torch.Tensor:
    """A token of each row, (rows), among the likeliest that together reach its `top_p`.

    logits: (rows, vocabulary); chances: from 0 to 1, where in what is left each row's token is taken.
    """
    device = logits.device
    heat = torch.tensor(temperatures, device=device).clamp(max=HOTTEST)
    shares, order = (logits / heat[:, None]).softmax(-1).sort(-1, descending=True)
    before = shares.cumsum(-1) - shares
    kept = shares * (before < torch.tensor(top_ps, device=device)[:, None])
    kept[:, 0] = shares[:, 0]  # also where top_p is so small that it counts as 0
    reach = kept.cumsum(-1)
    aim = torch.tensor(chances, device=device)[:, None] * reach[:, -1:]
    place = torch.searchsorted(reach, aim, right=True).clamp(max=logits.shape[1] - 1)
    # Rounding may lead one past the last token that is kept.
    place = torch.minimum(place, (kept > 0).sum(-1, keepdim=True) - 1)
    return order.gather(-1, place)[:, 0]
