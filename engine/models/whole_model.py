"""A model put together again from copies of its weights, in main memory: to be written while the other trains on."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM


def model_of(causal: Any, weights: dict[str, torch.Tensor]) -> Any:
    """A model of the same kind as `causal` that holds these weights, by their names in it; without copying them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(causal.config)
    report = model.load_state_dict({**_kept_buffers(causal), **weights}, strict=False, assign=True)
    model.tie_weights()
    if report.unexpected_keys or any(p.is_meta for p in model.parameters()):
        raise RuntimeError(f"weights do not fit their own model: {report.unexpected_keys or report.missing_keys}")
    model.generation_config, model.name_or_path = causal.generation_config, causal.name_or_path
    return model


def _kept_buffers(causal: Any) -> dict[str, torch.Tensor]:
    """Those that are stored with the weights."""
    parameters = {name for name, _ in causal.named_parameters(remove_duplicate=False)}
    return {name: value.cpu() for name, value in causal.state_dict().items() if name not in parameters}
