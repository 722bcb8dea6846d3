"""Decoding steps of one shape, which a GPU records once and repeats: launching a thousand kernels by hand takes it
longer than computing them.

    steps = FixedSteps(model, rows, most=20)    # room for so many further tokens
    logits = steps.next()                       # (rows, vocabulary)
    steps.feed(logits.argmax(-1))

The cache has all its columns from the beginning, hidden by the mask until they are filled. What cannot be recorded is
computed step by step, as on a processor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from engine.evaluation.cache import RoomyLayer, as_cache
from engine.evaluation.rows import Rows

logger = logging.getLogger("engine")

# How far a recorded step may be from the same one computed plainly, relative to the largest logit: bfloat16 has 8 bits.
MOST_APART = 2e-2
# Models whose steps could not be recorded, or came out otherwise: not tried again.
_not_recorded: WeakSet[Any] = WeakSet()


class FixedLayer(DynamicLayer):
    """One layer's keys and values, (rows, heads, columns, head size), into which new ones are written at `column`,
    a tensor of one number, the same for all layers."""

    def __init__(self, layer: RoomyLayer, columns: int, column: torch.Tensor) -> None:
        super().__init__()
        assert layer.keys is not None and layer.values is not None
        keys, values = (pad(x, (0, 0, 0, columns - x.shape[2])) for x in (layer.keys, layer.values))
        self.lazy_initialization(keys, values)
        self.keys, self.values, self._column = keys, values, column

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, (rows, heads, 1, head size); returns all keys and all values."""
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(2, self._column, key_states)
        self.values.index_copy_(2, self._column, value_states)
        return self.keys, self.values

    def selected(self, rows: torch.Tensor, columns: int) -> RoomyLayer:
        """A copy of only these rows and of the first `columns` columns, as `RoomyLayer.selected`."""
        assert self.keys is not None and self.values is not None
        return RoomyLayer(self.keys[rows, :, :columns], self.values[rows, :, :columns])


class FixedSteps:
    """Steps as `engine.evaluation.rows.Steps` takes them, of one shape, for rows of which none is dropped meanwhile."""

    def __init__(self, model: Any, rows: Rows, most: int) -> None:
        """`most`: how many steps may be taken; `rows` are copied."""
        columns, device = rows.mask.shape[1] + most, model.device
        self._model, self._column = model, torch.tensor([rows.mask.shape[1]], device=device)
        layers: Any = [FixedLayer(layer, columns, self._column) for layer in rows.layers]
        mask = pad(rows.mask, (0, most), value=False)
        self.rows = Rows(rows.rows, layers, rows.past.clone(), rows.token.clone(), rows.made, mask)
        self._cache = as_cache(layers)
        self._hidden = torch.where(mask, 0.0, torch.finfo(model.dtype).min).to(model.dtype)
        self._repeat: Callable[[], torch.Tensor] | None = None
        self._to_be_recorded = model not in _not_recorded

    def next(self) -> torch.Tensor:
        """Feed each row's newest token; returns the logits of the next one, (rows, vocabulary), valid until the next
        step."""
        if self._to_be_recorded:
            self._to_be_recorded = False
            return self._record()
        return self._repeat() if self._repeat else self._step()

    def feed(self, tokens: torch.Tensor) -> None:
        """Set the tokens, (rows), that the next step feeds."""
        self.rows.token.copy_(tokens)

    def _step(self) -> torch.Tensor:
        rows = self.rows
        rows.mask.index_fill_(1, self._column, True)
        self._hidden.index_fill_(1, self._column, 0.0)
        where = {"attention_mask": self._hidden[:, None, None], "position_ids": rows.past[:, None]}
        found = self._model(rows.token[:, None], past_key_values=self._cache, use_cache=True, logits_to_keep=1, **where)
        rows.past += 1
        self._column += 1
        return found.logits[:, -1]

    def _record(self) -> torch.Tensor:
        """Take the first step plainly, then record it, and keep that only if it says the same when it is repeated."""
        changed = (self._column, self.rows.past, self.rows.mask, self._hidden)
        before = [tensor.clone() for tensor in changed]

        def take_back() -> None:
            for tensor, old in zip(changed, before, strict=True):
                tensor.copy_(old)

        plain = self._step()
        take_back()
        try:
            repeat = recorded(self._step)
            again = repeat()
        except RuntimeError as error:
            problem = f"its steps cannot be recorded ({error})"
        else:
            apart = (again.float() - plain.float()).abs().max() / plain.float().abs().max().clamp(min=1)
            if bool(apart <= MOST_APART):
                self._repeat = repeat
                return again
            problem = f"its recorded steps differ by {float(apart):.3g}"
        logger.warning("%s: %s; they are computed one by one", type(self._model).__name__, problem)
        _not_recorded.add(self._model)
        take_back()
        return self._step()


def recorded(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """What repeats a step on the GPU, with whatever its tensors hold by then. Recording computes nothing.

    Raises RuntimeError where the step waits for the GPU on its way, as some mixtures of experts do.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads go on meanwhile: one may be writing a checkpoint.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = step()

    def repeat() -> torch.Tensor:
        graph.replay()
        return found

    return repeat
