"""Adapters in vLLM's worker on processors, computed for each adapter at once. Imported by that worker alone.

vLLM 0.32's own code for processors copies an adapter's whole weights for every single token, which takes most of the
time that small models need, and it takes tokens without an adapter for tokens of the last one. Here the tokens of one
adapter go through it together, in two matrix products, and tokens without an adapter are left alone.

`--worker-extension-cls engine.serving.vllm.adapters.Extension` brings it in: vLLM imports this file in the worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

NO_ADAPTER = -1
Group = tuple[int, torch.Tensor | None]  # the adapter's place, and its tokens (None: all of them)


class Extension:
    """Nothing is added to the worker itself."""


def groups_of(places: torch.Tensor) -> list[Group]:
    """The tokens of each adapter; `places` (tokens) holds each token's adapter, `NO_ADAPTER` where it has none."""
    present = torch.unique(places).tolist()
    if len(present) == 1:
        return [(present[0], None)] if present[0] != NO_ADAPTER else []
    return [(place, (places == place).nonzero()[:, 0]) for place in present if place != NO_ADAPTER]


class AdaptersAtOnce(PunicaWrapperCPU):
    """vLLM's wrapper, with another way to add an adapter's share to a linear layer's output."""

    _groups: tuple[Group, ...] | list[Group] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Which token has which adapter, before each step of the model."""
        super().update_metadata(*args, **kwargs)
        self._groups = groups_of(self.token_lora_indices)

    def add_lora_linear(
        self, y: torch.Tensor, x: torch.Tensor, lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...], scale: float, output_slices: tuple[int, ...], **kwargs: Any,
    ) -> None:  # fmt: skip
        """y (tokens, outputs) += scale · x · Aᵀ · Bᵀ of each token's adapter, slice by slice, in place.

        x: (tokens, inputs). A: (adapters, 1, rank, inputs) and B: (adapters, 1, slice, rank) for each output slice.
        """
        x, y = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for place, rows in self._groups:
            inputs = (x if rows is None else x.index_select(0, rows)).float()
            first = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                share = (inputs @ a[place, 0].float().T * scale @ b[place, 0].float().T).to(y.dtype)
                part = y[:, first : first + width]
                if rows is None:
                    part += share[:, :width]
                else:
                    part.index_add_(0, rows, share[:, :width])
                first += width


def bring_in() -> None:
    """Make vLLM use it: the class is looked up by its name when adapters are switched on."""
    place: Any = import_module("vllm.lora.punica_wrapper.punica_cpu")
    place.PunicaWrapperCPU = AdaptersAtOnce


bring_in()
