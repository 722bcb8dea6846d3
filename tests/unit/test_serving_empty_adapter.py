"""The adapter that changes nothing is one of the model's own family: PEFT makes the same, vLLM knows its modules."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from engine.models.loading import load_base, prepare_for_training, save_model
from engine.serving.vllm.empty_adapter import empty_adapter
from tests.unit.tiny_models import SHAPE, build_phi3, tiny_experiment

GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2}  # queries and keys of different sizes
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
OPT = {"ffn_dim": 24, "word_embed_proj_dim": 16}
FAMILIES: dict[str, tuple[Any, Any, dict[str, int], str]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, GROUPED, "model.layers.0.self_attn.q_proj"),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, GROUPED, "model.layers.0.self_attn.q_proj"),
    "gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM, {"head_dim": 8}, "model.layers.0.self_attn.q_proj"),
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 4}, "model.layers.0.self_attn.q_proj"),
    "opt": (OPTConfig, OPTForCausalLM, OPT, "model.decoder.layers.0.self_attn.q_proj"),
    "phi3": (Phi3Config, Phi3ForCausalLM, {**GROUPED, "pad_token_id": 0}, "model.layers.0.self_attn.qkv_proj"),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM, {}, "gpt_neox.layers.0.attention.query_key_value"),
    "gpt2": (GPT2Config, GPT2LMHeadModel, GPT2, "transformer.h.0.attn.c_attn"),
}


def build(folder: Path, kind: str, **saving: Any) -> Path:
    config, model, own, _ = FAMILIES[kind]
    torch.manual_seed(0)
    model(config(**{**SHAPE, "vocab_size": 96, **own})).save_pretrained(folder, **saving)
    return folder


def tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_is_what_peft_makes_of_that_family_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    base = build(tmp_path / "key", kind)
    folder, module = empty_adapter(base), FAMILIES[kind][3]
    made = tensors(folder)
    assert sorted(made) == [f"base_model.model.{module}.lora_{side}.weight" for side in "AB"]
    named = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    of_peft = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=1, target_modules=named))
    theirs = {name: tuple(values.shape) for name, values in get_peft_model_state_dict(of_peft).items()}
    assert made.items() <= theirs.items()
    plain, words = AutoModelForCausalLM.from_pretrained(base), torch.tensor([[5, 6, 7, 30]])
    with torch.inference_mode():
        before = plain(words).logits
        with_it: Any = PeftModel.from_pretrained(plain, str(folder))
        assert torch.equal(with_it(words).logits, before)
    assert empty_adapter(base) == folder


def test_weights_in_several_files_are_looked_through(tmp_path: Path) -> None:
    base = build(tmp_path / "key", "llama", max_shard_size="4KB")
    assert len(list(base.glob("*.safetensors"))) > 2
    assert sorted(tensors(empty_adapter(base)))[0].startswith("base_model.model.model.layers.0.self_attn.q_proj.")


def test_a_model_without_attention_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(ValueError, match=r"no weights of the usual names .*: vLLM cannot serve adapters of this model"):
        empty_adapter(tmp_path / "key")


def test_an_adapter_of_the_lab_on_phi_names_modules_that_are_there(tmp_path: Path) -> None:
    source = build_phi3(tmp_path / "models", **GROUPED)
    experiment = tiny_experiment(source, tuning={"method": "lora", "rank": 4})
    save_model(prepare_for_training(load_base(experiment), experiment), tmp_path / "adapter")
    modules = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in tensors(tmp_path / "adapter")}
    there = {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}
    assert modules == {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in there}


def test_vllm_knows_each_fused_projection_of_phi_as_one() -> None:
    """Else it would look for adapters on the parts."""
    vllm = importlib.util.find_spec("vllm")
    if vllm is None or not vllm.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    source_text = Path(vllm.submodule_search_locations[0], "model_executor", "models", "phi3.py").read_text()
    [packed] = [
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source_text))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "packed_modules_mapping"
    ]
    assert packed == {"qkv_proj": ["qkv_proj"], "gate_up_proj": ["gate_up_proj"]}
