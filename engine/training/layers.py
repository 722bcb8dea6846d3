"""Which of a model's weights a stage trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from transformers import PreTrainedModel


def layer_of(parameter: str) -> int | None:
    """The layer that a parameter of this name belongs to, counted from 0 at the input; None outside the layers.

    In every architecture of transformers it is the name's first number: `model.layers.3.mlp.up_proj.weight` is in 3.
    """
    return next((int(part) for part in parameter.split(".") if part.isdecimal()), None)


@contextmanager
def freeze_other_layers(causal: PreTrainedModel, layers: int | Literal["all", "auto"]) -> Iterator[None]:
    """Within the block only the first `layers` layers can be trained, of what could be before (engine/experiment.py).

    Afterwards as it was. Gradients of what is frozen are not computed.
    """
    count = getattr(causal.config, "layers_to_generalise", "all") if layers == "auto" else layers
    frozen = []
    if isinstance(count, int):
        for name, parameter in causal.named_parameters():
            layer = layer_of(name)
            if parameter.requires_grad and (layer is None or layer >= count):
                frozen.append(parameter)
                parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
