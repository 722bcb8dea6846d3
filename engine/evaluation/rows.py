"""Rows decoded together, whatever the lengths of their pasts: masks hide what a row's cache holds beyond its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from engine.evaluation.cache import RoomyLayer, as_cache, joined


@dataclass
class Rows:
    """Rows that are being decoded, columns of the cache right-padded where `mask` hides them.

    rows: the questions' places; layers: the cache; past: (rows), how many tokens are behind each row; token: (rows),
    the newest one, not yet fed; made: (rows), how many tokens of the answer there are with it; mask: (rows, columns),
    true where the cache holds the row's past.
    """

    rows: torch.Tensor
    layers: list[RoomyLayer]
    past: torch.Tensor
    token: torch.Tensor
    made: torch.Tensor
    mask: torch.Tensor


def step(model: Any, rows: Rows) -> torch.Tensor:
    """Feed each row's newest token; returns the logits of the next one, (rows, vocabulary).

    The cache, `mask` and `past` of `rows` grow by that token. The mask shows a row all of its past, in every layer: not
    for more columns than `fast_length` says.
    """
    rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(rows.token), 1)], 1)
    mask = torch.where(rows.mask, 0.0, torch.finfo(model.dtype).min).to(model.dtype)
    where = {"attention_mask": mask[:, None, None], "position_ids": rows.past[:, None]}
    found = model(rows.token[:, None], past_key_values=as_cache(rows.layers), use_cache=True, logits_to_keep=1, **where)
    rows.past = rows.past + 1
    return found.logits[:, -1]


class Steps:
    """Decoding rows one token at a time: `rows` are grown in place."""

    def __init__(self, model: Any, rows: Rows) -> None:
        self._model, self.rows = model, rows

    def next(self) -> torch.Tensor:
        """Feed each row's newest token; returns the logits of the next one, (rows, vocabulary)."""
        return step(self._model, self.rows)

    def feed(self, tokens: torch.Tensor) -> None:
        """Set the tokens, (rows), that the next step feeds."""
        self.rows.token = tokens


def select(rows: Rows, keep: torch.Tensor) -> Rows:
    """Only the rows at the indices `keep` (kept rows), without the last columns that none of them needs."""
    mask = rows.mask[keep]
    needed = mask.any(0).nonzero()
    columns = int(needed[-1]) + 1 if len(needed) else 0
    return Rows(
        rows.rows[keep],
        [layer.selected(keep, columns) for layer in rows.layers],
        rows.past[keep],
        rows.token[keep],
        rows.made[keep],
        mask[:, :columns],
    )


def merge(parts: list[Rows]) -> Rows:
    """All rows of the parts, in order: (sum of rows, widest part's columns), narrower ones padded on the right."""
    columns = max(part.mask.shape[1] for part in parts)
    return Rows(
        torch.cat([part.rows for part in parts]),
        joined([part.layers for part in parts], columns),
        torch.cat([part.past for part in parts]),
        torch.cat([part.token for part in parts]),
        torch.cat([part.made for part in parts]),
        torch.cat([pad(part.mask, (0, columns - part.mask.shape[1])) for part in parts]),
    )
