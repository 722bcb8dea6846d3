"""Names from outside the word lists, as users bring them: any syllables, so several tokens a word.

A share of the world's entities has such names, so that the base model can also recall names like "Ada Quill".
"""

from __future__ import annotations

import random

ONSETS = [
    "",
    "",
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "ph",
    "pl",
    "pr",
    "qu",
    "r",
    "rh",
    "s",
    "sc",
    "sh",
    "sl",
    "sm",
    "sn",
    "sp",
    "st",
    "str",
    "sw",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "wh",
    "y",
    "z",
]
VOWELS = [
    "a",
    "a",
    "e",
    "e",
    "i",
    "i",
    "o",
    "o",
    "u",
    "y",
    "ai",
    "au",
    "ea",
    "ee",
    "ei",
    "ia",
    "ie",
    "io",
    "oa",
    "oo",
    "ou",
    "ue",
]
CODAS = [
    "",
    "",
    "",
    "b",
    "ck",
    "d",
    "f",
    "g",
    "k",
    "l",
    "ll",
    "ld",
    "lt",
    "m",
    "n",
    "nd",
    "ng",
    "nn",
    "nt",
    "p",
    "r",
    "rd",
    "rk",
    "rn",
    "rt",
    "s",
    "ss",
    "st",
    "t",
    "th",
    "tt",
    "x",
    "ne",
    "te",
    "le",
    "ry",
    "ley",
    "son",
    "ton",
]
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
