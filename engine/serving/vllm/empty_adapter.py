"""A base model as an adapter that changes nothing.

vLLM's own code for processors (0.32) puts an adapter on the base's questions when they are computed together with
questions to adapters, and says nothing: hundreds of log-probabilities of 1,400 were wrong, by up to 27. Adapters beside
each other are computed rightly. So there the base is asked as an adapter too, one whose numbers are all zero. Processes
that the lab starts need it no more (adapters.py); a vLLM in a container of its own does.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save_file

from engine.models.folders import replaced, whole

MODULE = "model.layers.0.self_attn.q_proj"  # adapters may be on one module alone


def empty_adapter(base: Path) -> Path:
    """The folder of the empty adapter of the prepared base in HOME/prepared/KEY, made on the first call.

    Raises ValueError when the base has no such weights as adapters are put on.
    """
    folder = base.with_name(f"{base.name}-empty-adapter")
    if ready := whole(folder):
        return ready
    outputs, inputs = _shape(base)
    with FileLock(folder.with_name(f".{folder.name}.lock")), replaced(folder) as new:
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1}
        config |= {"target_modules": [MODULE.rpartition(".")[2]], "bias": "none", "inference_mode": True}
        (new / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        numbers = {
            f"base_model.model.{MODULE}.lora_A.weight": np.zeros((1, inputs), np.float32),
            f"base_model.model.{MODULE}.lora_B.weight": np.zeros((outputs, 1), np.float32),
        }
        save_file(numbers, new / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def _shape(base: Path) -> tuple[int, int]:
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            if f"{MODULE}.weight" in weights.keys():  # noqa: SIM118 (it is no mapping)
                outputs, inputs = weights.get_slice(f"{MODULE}.weight").get_shape()
                return outputs, inputs
    raise ValueError(f"{base} has no weights {MODULE}: vLLM cannot serve adapters of this model")
