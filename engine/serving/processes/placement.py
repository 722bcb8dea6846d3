"""On which GPUs a vLLM process stands, and how much of each it takes: one that holds the model, else several together.

vLLM cuts every matrix into as many pieces as there are GPUs (`--tensor-parallel-size`), along the attention heads; what
it needs beside the weights it needs on each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.hardware import Gpu, serving_gpus
from engine.models.files import find_folder, model_shape
from engine.models.reading import read_json
from engine.models.source import ModelError
from engine.serving.processes.room import ALL_PARTS, ROUNDING
from engine.serving.served import ServedModel
from engine.serving.vllm import backend as vllm_backend

# Beside its weights on a GPU: activations, compiled graphs, CUDA's own, and the least cache that is worth a server.
BESIDE_GIB, ADAPTERS_GIB = 4.0, 1.0
# Of a GPU whose size nobody tells.
UNKNOWN_PART = 0.85
TOGETHER = (2, 4, 8)
# What vLLM cuts, by the names that families give it in config.json. It asserts that nothing is left over.
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
CUT = (*HEADS, "intermediate_size")


@dataclass(frozen=True, slots=True)
class Placement:
    """gpus: none on a processor, and where nobody tells of any. part: of the memory of each of them, from the server's
    start to its end; 0 on a processor, more than `ALL_PARTS` where the model fits nowhere."""

    gpus: tuple[Gpu, ...] = ()
    part: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether there is room for the model once nothing else is there."""
        return self.part <= ALL_PARTS


def placed(model: ServedModel, taken: Callable[[Gpu], float] = lambda gpu: 0.0) -> Placement:
    """Where a vLLM of the model stands: on a GPU that holds it alone, else on the fewest that do together; those first
    on which there is room beside the part that is `taken`."""
    if vllm_backend.is_cpu_build():
        return Placement()
    gpus = serving_gpus()
    if not gpus:
        return Placement(part=UNKNOWN_PART)
    weights, beside = _weights_gib(model), BESIDE_GIB + (ADAPTERS_GIB if model.kind != "full" else 0.0)
    for count in _counts(model, len(gpus)):
        needed = 1.05 * weights / count + beside
        large = [gpu for gpu in gpus if _part(needed, gpu) <= ALL_PARTS]
        if len(large) >= count:
            large.sort(key=lambda gpu: taken(gpu) + _part(needed, gpu) > ALL_PARTS + ROUNDING)
            chosen = sorted(large[:count], key=gpus.index)
            return Placement(tuple(chosen), max(_part(needed, gpu) for gpu in chosen))
    return Placement(gpus[:1], _part(1.05 * weights + beside, gpus[0]))


def _part(needed: float, gpu: Gpu) -> float:
    return math.ceil(100 * needed / gpu.gib) / 100


def _counts(model: ServedModel, there: int) -> Iterator[int]:
    """One, then how many GPUs vLLM can cut the model for; none of these where its config.json is not to be had."""
    yield 1
    config = _config(model) if there > 1 else {}
    if not any(name in config for name in HEADS):
        return
    groups = config.get("num_key_value_heads")
    groups = groups if isinstance(groups, int) and groups > 0 else 1
    for count in TOGETHER:
        cut = all(config[name] % count == 0 for name in CUT if isinstance(config.get(name), int))
        # Of heads for keys and values there may be fewer than GPUs: then several hold the same one.
        if count <= there and cut and (groups % count == 0 or count % groups == 0):
            yield count


def _config(model: ServedModel) -> dict[str, Any]:
    folders: list[Path | None] = [model.folder if model.kind == "full" else model.prepared]
    folders += [find_folder(model.source)] if model.source else []
    for folder in folders:
        try:
            config = read_json(folder, "config.json") if folder else None
        except ModelError:
            continue
        if config:
            inner = config.get("text_config")
            return inner if isinstance(inner, dict) else config
    return {}


def _weights_gib(model: ServedModel) -> float:
    """What the server's weights take: as they lie there, or as they will once the base is prepared."""
    folder = model.folder if model.kind == "full" else model.prepared
    there = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    shape = None if there else model_shape(model.source)
    return (there or (2 * shape.parameters if shape else 0)) / 2**30
