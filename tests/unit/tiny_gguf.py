"""Tiny GGUF files of real families, written by the `gguf` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

HIDDEN, INNER, LAYERS, HEADS = 16, 32, 2, 2


def build_gguf(path: Path, *, beginning: bool | None = True, architecture: str = "llama", **changed: Any) -> Path:
    """A Llama of two layers with a byte-level tokenizer of 300 tokens, the last of them `last`.

    beginning: whether texts begin with a token; None says nothing of it. changed: settings of the header.
    """
    random = np.random.default_rng(0)
    letters = [*bytes_to_unicode().values(), "Ġa"]
    tokens = ["<unk>", "<s>", "</s>", *letters, *(f"<unused{i}>" for i in range(300 - 3 - len(letters)))]
    tokens[-1] = changed.get("last", tokens[-1])
    kinds = [3, 3, 3, *([1] * len(letters)), *([3] * (300 - 3 - len(letters)))]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_uint32(f"{architecture}.block_count", changed.get("block_count", LAYERS))
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(changed.get("vocab_size", len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ġ a"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if beginning is not None:
        writer.add_add_bos_token(beginning)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    if "split" in changed:
        writer.add_uint16("split.count", changed["split"])

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.1).astype(np.float32))

    tensor("token_embd.weight", len(tokens), HIDDEN)
    tensor("output.weight", len(tokens), HIDDEN)
    tensor("output_norm.weight", HIDDEN)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{layer}.{name}.weight", HIDDEN, HIDDEN)
        tensor(f"blk.{layer}.ffn_gate.weight", INNER, HIDDEN)
        tensor(f"blk.{layer}.ffn_up.weight", INNER, HIDDEN)
        tensor(f"blk.{layer}.ffn_down.weight", HIDDEN, INNER)
        tensor(f"blk.{layer}.attn_norm.weight", HIDDEN)
        tensor(f"blk.{layer}.ffn_norm.weight", HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
