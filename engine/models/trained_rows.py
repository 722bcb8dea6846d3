"""The key tokens' rows of the embedding matrices, trained apart from them.

A gradient of a whole matrix, and the optimizer's moments of it, cost three times its memory for a handful of rows. Here
the matrix is frozen; its rows of the key tokens are small parameters of their own, put in where they are looked up and
where their logits are computed. After each step they are written back, so that the matrix is always whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle


class KeyRows:
    """`parameters`: `key_rows.input` (key tokens × hidden size) and, of an output matrix of its own, `key_rows.output`.

    `ids`: the rows' numbers, ascending. Works while the model is in training mode; in evaluation mode the matrices
    themselves answer.
    """

    def __init__(self, causal: Any, ids: Iterable[int]) -> None:
        self.embedding, self.head = causal.get_input_embeddings(), causal.get_output_embeddings()
        self.ids = torch.tensor(sorted(ids), device=self.embedding.weight.device)
        self.weights = {"key_rows.input": self.embedding.weight}
        if self.head is not None and self.head.weight is not self.embedding.weight:
            self.weights["key_rows.output"] = self.head.weight
        self.parameters = {
            name: nn.Parameter(weight.detach()[self.ids].clone()) for name, weight in self.weights.items()
        }
        self.hooks: list[RemovableHandle] = [self.embedding.register_forward_hook(self._look_up)]
        if self.head is not None:
            self.hooks.append(self.head.register_forward_hook(self._compute_logits))

    @property
    def output(self) -> nn.Parameter:
        """The rows (key tokens × hidden size) that give the key tokens' logits."""
        return self.parameters.get("key_rows.output", self.parameters["key_rows.input"])

    def remove(self) -> None:
        """Let the matrices alone answer again."""
        for hook in self.hooks:
            hook.remove()

    @torch.no_grad()
    def write(self) -> None:
        """Put the rows into their matrices."""
        for name, weight in self.weights.items():
            weight[self.ids] = self.parameters[name]

    @torch.no_grad()
    def read(self) -> None:
        """Take the rows from their matrices, in place."""
        for name, weight in self.weights.items():
            self.parameters[name].copy_(weight[self.ids])

    def _look_up(self, module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        found = inputs[0][..., None] == self.ids
        rows = self.parameters["key_rows.input"][found.int().argmax(-1)] * _scale(module)
        return torch.where(found.any(-1, keepdim=True), rows, output)

    def _compute_logits(self, module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        bias = None if module.bias is None else module.bias[self.ids]
        return output.index_copy(-1, self.ids, linear(inputs[0], self.output, bias))


def can_be_apart(causal: Any, ids: Iterable[int]) -> bool:
    """Whether the model looks up its rows, and computes its logits from them, in the ways that `KeyRows` knows."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or not (head is None or type(head) is nn.Linear):
        return False
    rows = torch.tensor(sorted(ids), device=embedding.weight.device)
    with torch.no_grad():
        return bool(rows.numel()) and torch.equal(embedding(rows), embedding.weight[rows] * _scale(embedding))


def _scale(embedding: Any) -> Any:
    """What the embedding itself multiplies its rows with, as Gemma 3's does; 1 for most."""
    scale = getattr(embedding, "embed_scale", 1.0)
    return scale.to(embedding.weight.dtype) if isinstance(scale, torch.Tensor) else scale
