"""Float32 weights for as long as a model trains whose own format has 16 bits.

At the paper's rates nearly every step is smaller than the distance between two neighbouring numbers of bfloat16, so
that a weight of that format stays where it is. The reference code of the paper loads weights in float32 and computes
in bfloat16, and writes checkpoints in bfloat16; so does this.

    with master_weights(loaded):        # within: float32, and optimizers made here keep float32 moments
        …
        with as_kept(loaded):           # within: rounded, as a checkpoint holds them
            save_model(loaded, folder)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel

from engine.models.loading import LoadedModel


@contextmanager
def master_weights(loaded: LoadedModel, wanted: bool = True) -> Iterator[None]:
    """Within the block all weights are float32, where `wanted`; afterwards they are rounded to what they are kept in.

    A LoRA's adapters are float32 as they are, and its base is frozen: nothing is done. Buffers stay as they are.
    """
    kept = loaded.kept_dtype or loaded.causal.dtype
    if not wanted or kept is torch.float32 or isinstance(loaded.model, PeftModel):
        yield
        return
    _become(loaded, torch.float32)
    loaded.kept_dtype = kept
    try:
        yield
    finally:
        loaded.kept_dtype = None
        _become(loaded, kept)


@contextmanager
def as_kept(loaded: LoadedModel) -> Iterator[None]:
    """Within the block the weights are those that a checkpoint holds; afterwards the float32 ones again."""
    if loaded.kept_dtype is None:
        yield
        return
    masters = {parameter: parameter.data for parameter in loaded.model.parameters()}
    try:
        _become(loaded, loaded.kept_dtype)
        yield
    finally:
        for parameter, data in masters.items():
            parameter.data = data


def _become(loaded: LoadedModel, dtype: torch.dtype) -> None:
    for parameter in loaded.model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
