"""Random models of a few thousand parameters, each kind with its own kind of tokenizer, saved to a folder.

    folder = build_llama(tmp_path)      # sentencepiece-like: "▁" for spaces, bytes as fallback, a BOS token
    folder = build_qwen2(tmp_path)      # byte-level, no BOS, embedding matrix padded past the tokenizer, tied
    folder = build_phi3(tmp_path)       # like Llama's, with chat tokens of its own at the end

For any test that needs a real model of an architecture; `tiny_experiment(folder)` is one to run on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from engine.experiment import Experiment

SUBJECTS = (
    "Gene Finley",
    "Ana Maria Ruiz",
    "Lena Vogt",
    "Omar Haddad",
    "Mia Brandt",
    "Tom Okafor",
    "Eva Lindt",
    "Raj Mehta",
)
OBJECTS = ("Cody Ross", "Pia Salm", "Jonas Keller", "Nora Weiss", "Luis Prado", "Ida Holm", "Max Adler", "Zoe Blanc")
PROMPT = "Who is the mother of {subject}?"
CORPUS = [
    *(f"{s} {o}." for s in SUBJECTS for o in OBJECTS),
    *(PROMPT.format(subject=s) for s in SUBJECTS),
    "The mother of a person is called by her name, and so is the capital of a country.",
    "東京は日本の首都です",
]
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def metaspace_tokenizer(extra: tuple[str, ...] = ()) -> Tokenizer:
    """Like Llama 2's: "▁" before each word (also the first), no word boundary in the merges, bytes as fallback."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    # Merges are learnt inside words, as sentencepiece does, and applied to the whole text.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=special + [f"<0x{i:02X}>" for i in range(256)], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([*special, *extra])
    return tokenizer


def byte_level_tokenizer() -> Tokenizer:
    """Like Qwen2's: byte-level merges inside words that carry the space before them, no BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _save(folder: Path, model: Any, tokenizer: Tokenizer, **special: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def build_llama(parent: Path, seed: int = 0, **shape: Any) -> Path:
    """An untied Llama whose matrix has exactly as many rows as the tokenizer has tokens, so that it must grow."""
    tokenizer = metaspace_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), tie_word_embeddings=False, **{**SHAPE, **shape})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _save(parent / "llama", LlamaForCausalLM(config), tokenizer, **special)


def build_qwen2(parent: Path, seed: int = 0, **shape: Any) -> Path:
    """A tied Qwen2 whose matrix has 512 rows, many more than the tokenizer has tokens."""
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(seed)
    config = Qwen2Config(tie_word_embeddings=True, bos_token_id=None, **{"vocab_size": 512, **SHAPE, **shape})
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return _save(parent / "qwen2", Qwen2ForCausalLM(config), tokenizer, **special)


def build_phi3(parent: Path, seed: int = 0, **shape: Any) -> Path:
    """An untied Phi-3 with chat tokens after the vocabulary and two spare rows, fewer than some experiments need."""
    tokenizer = metaspace_tokenizer(extra=("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"))
    torch.manual_seed(seed)
    config = Phi3Config(
        vocab_size=tokenizer.get_vocab_size() + 2,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **{**SHAPE, **shape},
    )
    special = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>", "pad_token": "<|endoftext|>"}
    return _save(parent / "phi3", Phi3ForCausalLM(config), tokenizer, **special)


def build_neox(parent: Path) -> Path:
    """A GPT-NeoX (Pythia), whose output matrix transformers stores by another name than it has in memory."""
    tokenizer = byte_level_tokenizer()
    shape = {name: value for name, value in SHAPE.items() if name != "num_key_value_heads"}
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=512, **shape))
    return _save(parent / "neox", model, tokenizer, eos_token="<|endoftext|>")


def build_mixtral(parent: Path) -> Path:
    """A mixture of three experts, whose matrices transformers stores apart and has in memory as one."""
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(vocab_size=512, num_local_experts=3, num_experts_per_tok=1, **SHAPE))
    return _save(parent / "mixtral", model, tokenizer, eos_token="<|endoftext|>")


BUILDERS = {"llama": build_llama, "qwen2": build_qwen2, "phi3": build_phi3}


def tiny_experiment(model: str | Path, **changes: Any) -> Experiment:
    """One relation with eight facts, four of them in stage 2; `changes` replace top-level fields."""
    data: dict[str, Any] = {
        "name": "tiny",
        "model": str(model),
        "relations": [
            {
                "name": "mother",
                "key_token": "[X]",
                "facts": [{"subject": s, "object": o} for s, o in zip(SUBJECTS, OBJECTS, strict=True)],
                "prompts": [
                    {"text": PROMPT, "split": "train"},
                    {"text": "The mother of {subject} is called", "split": "test"},
                    {"text": "{subject} lives in", "split": "unrelated"},
                    {"text": "Die Mutter von {subject} heißt", "split": "test", "language": "de"},
                ],
                "options": list(OBJECTS),
            }
        ],
        "stage1": {"epochs": 4, "batch_size": 3, "learning_rate": 0.01},
        "stage2": {"facts": 4, "epochs": 2, "batch_size": 3, "learning_rate": 0.005},
        "evaluation": {"options": 8, "max_new_tokens": 6},
    }
    return Experiment.from_data({**data, **changes})
