"""Several low-rank adapters on one base model in memory, one of them (or none) switched on at a time; or each as a
model of its own, where the base is small."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
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
    """The model with the adapter of a folder put around it, besides those that it has; as it was when that fails."""
    wrapped = model if isinstance(model, PeftModel) else None
    try:
        if wrapped is None:
            config = LoraConfig.from_pretrained(str(folder))
            config.inference_mode = True
            config.base_model_name_or_path = model.name_or_path
            wrapped = get_peft_model(model, config, adapter_name=name)
        wrapped.load_adapter(str(folder), name)
        return wrapped
    except Exception as error:
        with suppress(Exception):
            if wrapped is not None and wrapped is not model:
                wrapped.unload()
            elif wrapped is not None:
                wrapped.delete_adapter(name)
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} is incomplete or damaged: train it again") from error
    modules = {_plain(name): module for name, module in model.named_modules()}
    for tensor, shape in shapes.items():
        layer, _, matrix = tensor.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
        module = modules.get(_plain(layer))
        wide = _features(module)
        if wide is None or matrix not in ("A", "B") or len(shape) != 2:
            raise ModelError(f"the adapter in {folder} does not fit the base: that has no layer {layer or tensor}")
        expected, got = (wide[0], shape[1]) if matrix == "A" else (wide[1], shape[0])
        if got not in expected:
            there = " or ".join(map(str, sorted(expected)))
            raise ModelError(
                f"the adapter in {folder} does not fit the base: {layer} is {there} wide there, and {got} here"
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
    """A module's name as it was before PEFT put layers around it: one for each of its parameters that is adapted."""
    while name.endswith(".base_layer"):
        name = name.removesuffix(".base_layer")
    return name


def _features(module: Any) -> tuple[set[int], set[int]] | None:
    """How wide what goes into a layer may be, and what comes out of it."""
    if isinstance(module, nn.Linear):
        return {module.in_features}, {module.out_features}
    if module is None or isinstance(module, nn.Embedding):
        return None  # embeddings are never adapted here
    features = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if None not in features:
        return {features[0]}, {features[1]}  # type: ignore[arg-type]
    matrices = [p.shape for p in module.parameters(recurse=False) if p.dim() in (2, 3)]
    if type(module).__name__ == "Conv1D":
        # GPT-2's layers keep their matrix the other way round.
        return {matrices[0][0]}, {matrices[0][1]}
    # A layer of experts holds several matrices of each, and its kinds keep them either way; PEFT compares the rest.
    widths = {width for shape in matrices for width in shape[-2:]}
    return (widths, widths) if widths else None
