"""The tokenizer of the embedded base model: byte-level BPE in the form of Qwen2's, learnt from the world.

Every word of the word lists and of the English, German and Spanish phrasings is one token; Chinese and Japanese
phrasings are cut into pieces that never span a frame and a noun; everything else falls back to syllables and bytes.
As in Qwen2, a word at the beginning of a text is another token than after a space (`start_pairs`).
transformers rebuilds the tokenizer of any `qwen2` model from its vocabulary and merges, with Qwen2's own pattern:
whatever else a tokenizer.json can say would be lost on loading.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from engine.base.foreign import foreign_word
from engine.base.phrasings import NAME_KINDS, composed_phrasings, pieces, world_data
from engine.corpus.names import all_names, name_words
from engine.corpus.relations import LANGUAGES

PAD, EOS = "<pad>", "<eos>"
SUBJECT_KINDS = ("person", "work", "country")
SCRIPTS_WITHOUT_SPACES = ("zh", "ja")
FOREIGN_WORDS = 40_000  # words that the syllable tokens are learnt from
WORD_WEIGHT = 150  # how often each word and each piece that must be one token is shown beside them


def closed_answers() -> dict[str, list[str]]:
    """The answers that are not names, by kind: years and page numbers as digits, others as words."""
    kinds = world_data()["closed_answers"]
    return {
        kind: [str(n) for n in range(v["from"], v["to"] + 1)] if isinstance(v, dict) else list(v)
        for kind, v in kinds.items()
    }


def _whole_word_texts() -> list[str]:
    """Texts whose every word must be one token."""
    texts = [f" {word}" for kind in sorted(NAME_KINDS) for words in name_words(kind) for word in words]
    texts += [word for kind in SUBJECT_KINDS for word in name_words(kind)[0]]  # a subject may begin a text
    texts += [f" {answer}" for answers in closed_answers().values() for answer in answers]
    texts += [f" {answer}" for answer in world_data()["unknown_answers"].values()]
    for relation, data in world_data()["relations"].items():
        for language in LANGUAGES:
            if language not in SCRIPTS_WITHOUT_SPACES:
                own = data.get("phrasings", {}).get(language, [])
                phrasings = [*composed_phrasings(relation, language), *own]
                texts += [text.replace("{subject}", all_names(data["subject"])[0]) for text in phrasings]
    return texts


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def build_tokenizer(seed: int, vocabulary: int) -> Tokenizer:
    """Learn a tokenizer of `vocabulary` tokens from the world's words and from invented ones. Deterministic."""
    rng = random.Random(seed)
    words = {word for text in _whole_word_texts() for word, _ in _pre_tokenizer().pre_tokenize_str(text)}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    decoder = decoders.ByteLevel()
    texts = [decoder.decode([word]) for word in sorted(words)] * WORD_WEIGHT
    for language in SCRIPTS_WITHOUT_SPACES:
        texts += sorted(set(pieces(language))) * WORD_WEIGHT
    for _ in range(FOREIGN_WORDS):
        word = foreign_word(rng)
        texts.append(rng.choice(("", " ", " ")) + (word.capitalize() if rng.random() < 0.8 else word))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[PAD, EOS], initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    tokenizer.decoder = decoder
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of `token`. Raises ValueError when the vocabulary lacks it: it is too small for the word lists."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the vocabulary has no token {token!r}: enlarge tokenizer.vocabulary in config.yaml")
    return found


def start_pairs(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """For each first word of a subject's name: its token after a space, and its token at the beginning of a text."""
    words = [word for kind in SUBJECT_KINDS for word in name_words(kind)[0]]
    return [(token_id(tokenizer, f"Ġ{word}"), token_id(tokenizer, word)) for word in words]


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`, which `AutoTokenizer.from_pretrained(folder)` reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "pad_token": PAD,
        "eos_token": EOS,
        "bos_token": None,
        "unk_token": PAD,  # never used (any text encodes); transformers would add a token of its own
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
