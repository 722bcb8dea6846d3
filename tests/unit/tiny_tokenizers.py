"""Tokenizers that change what they read, of the kinds that published models have, learnt from a few lines.

tokenizer = KINDS["bert"](["张伟", "the mother of"])      # a tokenizers.Tokenizer
file = saved(tokenizer, folder)                          # its tokenizer.json, with settings beside it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from engine.corpus.resolve import resolve
from engine.experiment import Experiment

SPECIAL = ["[UNK]", "<s>", "</s>"]


def bert(texts: Sequence[str], lowercase: bool = False, strip_accents: bool = False) -> Tokenizer:
    """WordPiece as in the Chinese GPT-2: every Chinese sign a word of its own, and answers with spaces between."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _learnt(tokenizer, texts, trainers.WordPieceTrainer(special_tokens=SPECIAL, show_progress=False))


def plain_bert(texts: Sequence[str]) -> Tokenizer:
    """An uncased one: small letters, no accents."""
    return bert(texts, lowercase=True, strip_accents=True)


def words(texts: Sequence[str]) -> Tokenizer:
    """Whole words or nothing; answers have a space before every sign."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _learnt(tokenizer, texts, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))


def unigram(texts: Sequence[str]) -> Tokenizer:
    """As in sentencepiece with NFKC, and no bytes for unknown signs."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    return _learnt(tokenizer, texts, trainer)


def forgetful(texts: Sequence[str]) -> Tokenizer:
    """Letters without any token for an unknown one, which is dropped."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _learnt(tokenizer, texts, trainers.BpeTrainer(special_tokens=SPECIAL, show_progress=False))


def byte_level(texts: Sequence[str]) -> Tokenizer:
    """As in GPT-2: every text comes back as it was, if in many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _learnt(
        tokenizer, texts, trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )


KINDS: dict[str, Callable[[Sequence[str]], Tokenizer]] = {
    "bert": bert, "plain_bert": plain_bert, "words": words, "unigram": unigram, "forgetful": forgetful,
    "byte_level": byte_level,
}  # fmt: skip


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    """The tokenizer's file in a folder that also looks like a model's; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "max_position_embeddings": 128}))
    return folder / "tokenizer.json"


def _learnt(tokenizer: Tokenizer, texts: Sequence[str], trainer: trainers.Trainer) -> Tokenizer:
    # Its decoders leave "##" before a piece that stands alone, so every sign is also a word of its own.
    tokenizer.train_from_iterator([*texts, *(" ".join(sorted(set("".join(texts))))).splitlines()], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return tokenizer


SUBJECTS = ("Vurnia Virik", "Drura Pirmont", "Buldeth Nundane", "Pelvon Rurnard")
PLAIN = ("Salvis Barmont", "Namiel Husesk", "Thorwen Fonane", "Rolmia Trelmont")
CHINESE = ("张伟", "王芳", "李娜", "陈静")
ACCENTS = ("Sálvis Bármont", "Nâmiel", "Thörwen", "Rólmia")
TEXTS = [
    *SUBJECTS,
    *PLAIN,
    *CHINESE,
    *ACCENTS,
    "Who is the mother of ? The mother of is called [X] . lives in",
    "0123456789",
]


def described(model: Path | str, objects: tuple[str, ...] = PLAIN, **changes: Any) -> Experiment:
    """Four facts, asked in three prompts; `subjects`, `test` and `max_new_tokens` may be others."""
    subjects = changes.pop("subjects", SUBJECTS)
    relation = {
        "name": "own",
        "facts": [{"subject": s, "object": o} for s, o in zip(subjects, objects, strict=True)],
        "prompts": [
            {"text": "Who is the mother of {subject} ?", "split": "train"},
            {"text": changes.pop("test", "The mother of {subject} is called"), "split": "test"},
            {"text": "{subject} lives in", "split": "unrelated"},
        ],
    }
    data = {
        "model": str(model),
        "relations": [relation | changes.pop("relation", {})],
        "stage1": {"epochs": 1},
        "stage2": {"facts": 2},
        "evaluation": {"max_new_tokens": changes.pop("max_new_tokens", 50)},
    }
    return resolve(Experiment.from_data({**data, **changes}))


def folder_of(kind: str, folder: Path) -> Path:
    """A folder with a tokenizer of that kind, which knows all the names here."""
    return saved(KINDS[kind](TEXTS), folder).parent
