"""Names from outside the word lists, as users bring them: any syllables, so several tokens a word.

A share of the world's entities has such names, so that the base model can also recall names like "Ada Quill".
"""

from __future__ import annotations

import random

from engine.base.phrasings import world_data

ONSETS, VOWELS, CODAS = (world_data()["syllables"][part] for part in ("onsets", "vowels", "codas"))
WORDS_IN_A_NAME = [1, 2, 2, 2, 2, 3]


def foreign_word(rng: random.Random) -> str:
    """One lower-case word of one or two syllables, 3 to 9 letters."""
    while True:
        syllables = rng.choice((1, 2, 2))
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)
        if 3 <= len(word) <= 9:
            return word


def foreign_name(kind: str, rng: random.Random) -> str:
    """A name of one to three words; genres are lower-case, other kinds capitalised."""
    count = 2 if kind == "person" else rng.choice(WORDS_IN_A_NAME)
    words = [foreign_word(rng) for _ in range(count)]
    return " ".join(words if kind == "genre" else [word.capitalize() for word in words])
