"""Which of a model's weights a stage trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.models.loading import LoadedModel
from engine.models.trained_rows import KeyRows, can_be_apart
from engine.settings import Optimisation

# Smaller matrices are given a whole gradient, of which the rows are taken.
LARGE_MATRIX = 4_000_000


def layer_of(parameter: str) -> int | None:
    """The layer that a parameter of this name belongs to, counted from 0 at the input; None outside the layers.

    In every architecture of transformers it is the name's first number: `model.layers.3.mlp.up_proj.weight` is in 3.
    """
    return next((int(part) for part in parameter.split(".") if part.isdecimal()), None)


def belongs_to(parameter: str, modules: Iterable[str]) -> bool:
    """Whether a parameter of this name (or an adapter's) lies in one of the modules: `mlp`, `up_proj`, …"""
    return not set(modules).isdisjoint(parameter.split("."))


@contextmanager
def freeze_the_rest(
    loaded: LoadedModel, settings: Optimisation, *, apart: bool = True
) -> Iterator[dict[str, list[int]]]:
    """Within the block only what `settings` name can be trained, of what could be before (engine/settings.py).

    Afterwards as it was. Gradients of what is frozen are not computed. Of embedding matrices whose key tokens' rows
    alone are trained, these rows are `loaded.key_rows` meanwhile, where the model allows it.

    apart: False where the caller lets only these rows' gradients through; it is given the matrices' names with them.
    """
    config = loaded.causal.config
    layers, weights = settings.trained_layers, settings.trained_weights
    count = getattr(config, "layers_to_generalise", "all") if layers == "auto" else layers
    modules = getattr(config, "weights_to_memorise", "all") if weights == "auto" else weights
    wanted: list[Callable[[str], bool]] = []
    if isinstance(count, int):
        wanted.append(lambda name: (layer := layer_of(name)) is not None and layer < count)
    if modules != "all":
        wanted.append(lambda name: belongs_to(name, modules))
    trainable = {name: p for name, p in loaded.causal.named_parameters() if p.requires_grad}
    chosen = {p for name, p in trainable.items() if all(wants(name) for wants in wanted)}
    matrices = _embeddings(loaded.causal) & set(trainable.values())
    hooks, rows_only = [], {}
    if (modules != "all" or settings.embeddings == "key tokens") and not isinstance(count, int) and chosen:
        rows = list(loaded.key_token_ids.values())
        # A small matrix keeps the plain way, and with it the bits of the runs of before.
        asked = settings.embeddings == "key tokens" or any(matrix.numel() >= LARGE_MATRIX for matrix in matrices)
        if not rows:
            chosen -= matrices
        elif not apart:
            rows_only = {name: rows for name, p in trainable.items() if p in matrices}
            chosen |= matrices
        elif asked and matrices and can_be_apart(loaded.causal, rows):
            loaded.key_rows = KeyRows(loaded.causal, rows)
            chosen -= matrices
        else:
            hooks = [matrix.register_hook(_only_rows(rows)) for matrix in matrices]
            chosen |= matrices
    frozen = set(trainable.values()) - chosen
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield rows_only
    finally:
        for hook in hooks:
            hook.remove()
        if loaded.key_rows is not None:
            loaded.key_rows.remove()
            loaded.key_rows = None
        for parameter in frozen:
            parameter.requires_grad_(True)


def _embeddings(causal: Any) -> set[torch.nn.Parameter]:
    """The input matrix and, where it is another one, the output matrix."""
    modules = (causal.get_input_embeddings(), causal.get_output_embeddings())
    return {module.weight for module in modules if module is not None}


def _only_rows(rows: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A hook that lets the gradient of these rows alone through; without weight decay the others stay, bit for bit."""

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        only = torch.zeros_like(gradient)
        only[rows] = gradient[rows]
        return only

    return hook
