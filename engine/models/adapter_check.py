"""What an adapter's folder may hold before PEFT reads it. Knows no torch."""

from __future__ import annotations

from pathlib import Path

from engine.models.reading import called, inside_file, read_json, start_of
from engine.models.source import ModelError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Settings by which PEFT would import modules, read other files or models, or change the base's shape.
UNSAFE = ("auto_mapping", "megatron_config", "layer_replication", "modules_to_save", "trainable_token_indices",
          "loftq_config", "eva_config", "corda_config", "lora_ga_config", "arrow_config", "alora_invocation_tokens",
          "use_dora", "lora_bias")  # fmt: skip
PLAIN_STARTS = (True, False, None, "gaussian")  # `init_lora_weights` that leaves the base's own weights alone


def check_adapter(folder: Path) -> None:
    """Raises ModelError unless the folder holds a plain LoRA adapter in safetensors, in ordinary files inside it."""
    try:
        config = read_json(folder, ADAPTER_CONFIG)
        whole = config is not None and inside_file(folder, ADAPTER_WEIGHTS) and start_of(folder / ADAPTER_WEIGHTS)
    except ModelError:
        config = whole = None
    if config is None or not whole:
        raise ModelError(f"the adapter in {called(folder)} is incomplete or damaged: train it again")
    if (
        config.get("peft_type") != "LORA"
        or any(config.get(name) for name in UNSAFE)
        or (config.get("init_lora_weights", True) not in PLAIN_STARTS)
    ):
        raise ModelError(f"the adapter in {called(folder)} is no plain LoRA adapter: only those can be used")
