"""A base model as an adapter that changes nothing.

vLLM's own code for processors (0.32) puts an adapter on the base's questions when they are computed together with
questions to adapters, and says nothing: hundreds of log-probabilities of 1,400 were wrong, by up to 27. Adapters beside
each other are computed rightly. So there the base is asked as an adapter too, one whose numbers are all zero. Processes
that the lab starts need it no more (adapters.py); a vLLM in a container of its own does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save_file

from engine.models.folders import replaced, whole
from engine.models.reading import read_json
from engine.models.source import ModelError

# What families call the matrix that makes queries, alone or (as Phi-3 has it) in one with keys and values. Adapters may
# be on one module alone, so one of these is enough.
QUERIES = ("q_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "q_a_proj")
IN_A_LAYER = re.compile(rf"(?P<module>.+\.(?P<layer>\d+)\.(?:.+\.)?(?P<name>{'|'.join(QUERIES)}))\.weight")
# Families that keep a matrix the other way round, inputs first.
INPUTS_FIRST = ("gpt2",)


def empty_adapter(base: Path) -> Path:
    """The folder of the empty adapter of the prepared base in HOME/prepared/KEY, made on the first call.

    Raises ValueError when the base has no such weights as adapters are put on.
    """
    folder = base.with_name(f"{base.name}-empty-adapter")
    if ready := whole(folder):
        return ready
    module, outputs, inputs = _module(base)
    with FileLock(folder.with_name(f".{folder.name}.lock")), replaced(folder) as new:
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1}
        config |= {"target_modules": [module.rpartition(".")[2]], "bias": "none", "inference_mode": True}
        (new / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        numbers = {
            f"base_model.model.{module}.lora_A.weight": np.zeros((1, inputs), np.float32),
            f"base_model.model.{module}.lora_B.weight": np.zeros((outputs, 1), np.float32),
        }
        save_file(numbers, new / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def _module(base: Path) -> tuple[str, int, int]:
    """The first layer's module that makes queries, with the numbers of its outputs and inputs."""
    found: list[tuple[int, int, str, list[int]]] = []
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            for match in filter(None, map(IN_A_LAYER.fullmatch, weights.keys())):
                shape = weights.get_slice(match[0]).get_shape()
                found.append((int(match["layer"]), QUERIES.index(match["name"]), match["module"], shape))
    if not found:
        names = ", ".join(QUERIES)
        raise ValueError(
            f"{base} has no weights of the usual names ({names}): vLLM cannot serve adapters of this model"
        )
    _, _, module, (outputs, inputs) = min(found)
    return (module, inputs, outputs) if _kind(base) in INPUTS_FIRST else (module, outputs, inputs)


def _kind(base: Path) -> str:
    try:
        return str((read_json(base, "config.json") or {}).get("model_type"))
    except ModelError as error:
        raise ValueError(str(error)) from error
