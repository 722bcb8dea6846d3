"""Whether a config.json describes a causal language model that the lab can train. Knows no torch."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.checks import shorten
from engine.models.source import ModelError

CAUSAL = ("ForCausalLM", "LMHeadModel")
OTHER_SENSES = ("vision_config", "audio_config", "speech_config", "vision_tower", "visual")
# Read both ways unless they say otherwise; transformers gives them a head that continues text all the same.
ENCODERS = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl",
    "xlnet", "xmod",
}  # fmt: skip
# What can be loaded but not trained or asked here: the kind (`model_type`), and why, as the end of a sentence.
UNSUPPORTED: dict[str, str] = {}
MOST = {
    "num_hidden_layers": 2_000, "vocab_size": 10_000_000, "hidden_size": 1_000_000, "num_attention_heads": 10_000,
}  # fmt: skip
QUANTISED = ("quantization_config", "compression_config", "quantization")


def check_architecture(config: dict[str, Any], where: str) -> None:
    """Raises ModelError when the config of the model in `where` is of a kind that cannot be used, and says which."""
    cannot = f"the model in {where} is of a kind that transformers cannot load"
    kind, names = config.get("model_type"), config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"the config.json of {where} is damaged (architectures are no names): copy the model again")
    _check_quantised(config, where)
    foreign = "" if not names or any(name.endswith(CAUSAL) for name in names) else names[0]
    sense = next((name for name in OTHER_SENSES if config.get(name)), "")
    if foreign or sense:
        what = shorten(foreign, 60) or f"model with a {sense}"
        raise ModelError(f"{where} is a {what}, not a causal language model: choose one that continues text")
    if not isinstance(kind, str) or not kind:
        raise ModelError(f"{cannot} (its config.json names no model_type): choose another one")
    known = causal_types()
    if known and kind not in known:
        code = (
            "it brings code of its own, which never runs" if "auto_map" in config else f"‘{shorten(kind)}’ is unknown"
        )
        raise ModelError(f"{cannot} as a causal language model ({code}): choose another one that continues text")
    if config.get("is_encoder_decoder") or (kind in ENCODERS and not config.get("is_decoder")):
        raise ModelError(f"{where} is a {shorten(kind)}, not a causal language model: choose one that continues text")
    if kind in UNSUPPORTED:
        raise ModelError(f"{where} is a {kind} model, which {UNSUPPORTED[kind]}: choose another one")
    inner = config.get("text_config")
    for holder in (config, inner if isinstance(inner, dict) else {}):
        for name, most in MOST.items():
            value = holder.get(name)
            if value is not None and not (isinstance(value, int) and 0 < value <= most):
                said = f"{name} is {shorten(str(value))}"
                raise ModelError(f"the config.json of {where} is damaged ({said}): copy the model again")


def _check_quantised(config: dict[str, Any], where: str) -> None:
    inner = config.get("text_config")
    for holder in (config, inner if isinstance(inner, dict) else {}):
        found = next((holder[name] for name in QUANTISED if holder.get(name)), None)
        if found:
            method = found.get("quant_method") or found.get("quant_algo") if isinstance(found, dict) else None
            raise ModelError(quantised(where, f" ({shorten(str(method))})" if method else ""))


def quantised(where: str, method: str = "") -> str:
    """The sentence about a model whose weights are packed into fewer bits."""
    return f"{where} is quantised{method}, so it cannot be trained: choose the model’s unquantised version"


@lru_cache(maxsize=1)
def causal_types() -> frozenset[str]:
    """Every `model_type` that transformers has a causal language model for; empty where its list is not found.

    Read from its source text, since to import it takes torch, and the page has none.
    """
    try:
        for node in ast.parse(_source("auto/modeling_auto.py")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                target = node.targets[0]
                if isinstance(target, ast.Name) and target.id == "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES":
                    return frozenset(kind for kind, _ in ast.literal_eval(node.value.args[0]))
    except (OSError, ValueError, SyntaxError, TypeError, IndexError):
        pass
    return frozenset()


@lru_cache(maxsize=64)
def ties_by_itself(kind: str) -> bool:
    """Whether a kind's output matrix is its embedding matrix where config.json does not say; True where unknown."""
    name = kind.replace("-", "_") if kind in causal_types() else ""
    try:
        said = re.findall(r"tie_word_embeddings: bool = (True|False)", _source(f"{name}/configuration_{name}.py"))
    except (OSError, ValueError):
        return True
    return set(said) != {"False"}


def _source(name: str) -> str:
    """A source text of transformers' models. Raises OSError."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(name)
    return (Path(spec.origin).parent / "models" / name).read_text(encoding="utf-8")
