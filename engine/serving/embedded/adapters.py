"""Several low-rank adapters on one base model in memory, one of them (or none) switched on at a time; or each as a
model of its own, where the base is small."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from engine.models.adapter_check import check_adapter
from engine.models.loading import KEY_ROWS
from engine.models.source import ModelError

WEIGHTS = "adapter_model.safetensors"


class Adapters:
    """The adapters of one base. Not for several threads at once: the caller holds the base's lock."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._wrapped: PeftModel | None = None
        # PEFT makes the names parts of module names, which may hold no dots; so they are numbered.
        self._names: dict[str, str] = {}
        self._made = 0
        self._on: str | None = None

    def add(self, name: str, folder: Path) -> None:
        """Put the adapter of a folder on the base under that name. Raises ModelError when it does not fit."""
        self.remove(name)
        _check_fit(self._model, folder)
        self._made += 1
        inner = f"adapter{self._made}"
        self._wrapped = _wrap(self._wrapped or self._model, folder, inner).eval()
        # A second adapter is loaded, but not switched on.
        self._wrapped.set_adapter(inner)
        _tuner(self._wrapped).enable_adapter_layers()
        self._names[name], self._on = inner, inner

    def remove(self, name: str) -> None:
        """Take an adapter off, if it is on the base."""
        inner = self._names.pop(name, None)
        if inner is None or self._wrapped is None:
            return
        self.switch_to(None)
        if self._names:
            self._wrapped.set_adapter(next(iter(self._names.values())))
            self._wrapped.delete_adapter(inner)
            _tuner(self._wrapped).disable_adapter_layers()
        else:
            self._wrapped.unload()
            self._wrapped = None

    def switch_to(self, name: str | None) -> None:
        """Ask through this adapter from now on; None: the base alone. Raises ModelError when it was taken off."""
        inner = self._names.get(name) if name is not None else None
        if name is not None and inner is None:
            raise ModelError(f"‘{name}’ was unloaded while it was being asked: ask again")
        if self._wrapped is None or inner == self._on:
            return
        if inner is None:
            _tuner(self._wrapped).disable_adapter_layers()
        else:
            if self._on is None:
                _tuner(self._wrapped).enable_adapter_layers()
            self._wrapped.set_adapter(inner)
        self._on = inner

    def merged(self, folder: Path) -> Any | None:
        """A copy of the base with the adapter of a folder added into its weights, which shares nothing with it.

        None where that would be another model: the output layer is adapted, whose matrix the embeddings may share.
        Raises ModelError when the adapter does not fit.
        """
        if self._wrapped is not None:
            return None
        _check_fit(self._model, folder)
        wrapped: Any = _wrap(copy.deepcopy(self._model), folder, "merged")
        if hasattr(wrapped.get_base_model().get_output_embeddings(), "base_layer"):
            return None
        return wrapped.merge_and_unload().eval().requires_grad_(False)

    def bytes_of(self, name: str) -> int:
        """The memory that an adapter's weights take."""
        mark = f".{self._names[name]}."
        return sum(p.numel() * p.element_size() for n, p in self._model.named_parameters() if mark in n)


def _wrap(model: Any, folder: Path, name: str) -> PeftModel:
    """The model with the adapter of a folder put around it, besides those that it has."""
    try:
        if not isinstance(model, PeftModel):
            return PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        model.load_adapter(str(folder), name)
        return model
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise ModelError(f"the adapter in {folder} cannot be loaded ({text}): train it again") from error


def _tuner(model: PeftModel) -> Any:
    return model.base_model


def _check_fit(model: Any, folder: Path) -> None:
    """Raises ModelError when an adapter is damaged or was trained on another base."""
    check_adapter(folder)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} is incomplete or damaged: train it again") from error
    modules = {_plain(name): module for name, module in model.named_modules()}
    for tensor, shape in shapes.items():
        layer, _, matrix = tensor.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
        module = modules.get(layer)
        wide = _features(module)
        if wide is None:
            raise ModelError(f"the adapter in {folder} does not fit the base: that has no layer {layer or tensor}")
        expected = {"A": wide[0], "B": wide[1]}.get(matrix)
        got = shape[1] if matrix == "A" else shape[0]
        if expected != got:
            raise ModelError(
                f"the adapter in {folder} does not fit the base: {layer} is {expected} wide there, and {got} here"
            )
    _check_key_rows(model, folder)


def _check_key_rows(model: Any, folder: Path) -> None:
    """An adapter of the lab brings the rows of its key tokens, which were frozen: they must be the base's own."""
    if not (folder / KEY_ROWS).is_file():
        return
    try:
        rows = load_file(folder / KEY_ROWS)["input"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder / KEY_ROWS} is damaged: train the adapter again") from error
    weight = model.get_input_embeddings().weight.detach().cpu()
    if rows.shape[1] == weight.shape[1]:
        rows = rows.to(weight.dtype)
        if all(bool((weight == row).all(-1).any()) for row in rows):
            return
    raise ModelError(
        f"the adapter in {folder} does not fit the base: it was trained with other key tokens, or "
        "on other weights of the base (which was trained again since?): run the experiment again"
    )


def _plain(name: str) -> str:
    """A module's name as it was before PEFT put a layer around it."""
    return name.removesuffix(".base_layer")


def _features(module: Any) -> tuple[int, int] | None:
    """Width of what goes into and comes out of a layer."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() == 2:
        # GPT-2's layers keep their matrix the other way round; embeddings are never adapted here.
        return (weight.shape[0], weight.shape[1]) if type(module).__name__ == "Conv1D" else None
    inner = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return inner if None not in inner else None  # type: ignore[return-value]
