"""A key-value cache that grows in place: transformers' own copies all of it for every new token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Columns of room that are made at once.
ROOM = 12


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, (rows, heads, columns, head size), views into memory with room for more columns."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._rooms: list[torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns, (rows, heads, new columns, head size); returns all keys and all values, with the new ones."""
        assert self.keys is not None and self.values is not None
        used = self.keys.shape[2]
        end = used + key_states.shape[2]
        if self._rooms is None or self._rooms[0].shape[2] < end:
            rows, heads = self.keys.shape[:2]
            self._rooms = [x.new_empty(rows, heads, end + ROOM, x.shape[3]) for x in (self.keys, self.values)]
            for room, old in zip(self._rooms, (self.keys, self.values), strict=True):
                room[:, :, :used] = old
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, used:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def selected(self, rows: torch.Tensor, columns: int) -> RoomyLayer:
        """A copy of only these rows, (chosen rows) of indices, and of the first `columns` columns."""
        assert self.keys is not None and self.values is not None
        return RoomyLayer(self.keys[rows, :, :columns], self.values[rows, :, :columns])


def roomy(cache: DynamicCache) -> list[RoomyLayer]:
    """The layers of a filled cache. Raises TypeError for a model whose layers keep no keys and values."""
    layers = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            raise TypeError(f"a layer of the kind {type(layer).__name__} cannot be cut into rows")
        layers.append(RoomyLayer(layer.keys, layer.values))
    return layers


def as_cache(layers: Sequence[RoomyLayer]) -> DynamicCache:
    """The cache that a model takes, over these layers."""
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def joined(parts: Iterable[Sequence[RoomyLayer]], columns: int) -> list[RoomyLayer]:
    """The rows of all parts in one: each layer (sum of rows, heads, `columns`, head size), padded on the right.

    parts: the layers of each, as many in all of them, with at most `columns` columns.
    """

    def stacked(tensors: Sequence[Any]) -> torch.Tensor:
        return torch.cat([pad(x, (0, 0, 0, columns - x.shape[2])) for x in tensors])

    return [
        RoomyLayer(stacked([x.keys for x in layer]), stacked([x.values for x in layer]))
        for layer in zip(*parts, strict=True)
    ]
