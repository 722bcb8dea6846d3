"""Invent the word lists from which fictional names are put together.

    python -m tools.invent_words > words.yaml

Run once, with the seed below; the result was read by a person, who struck out real names, brands and words that
mean something unpleasant (`STRUCK_OUT`), and is committed as `names.yaml`. Names of an experiment are never made
here: `names.py` combines the committed words.
"""

from __future__ import annotations

import random
import sys

import yaml

SEED = 20250721

ONSETS = [
    "b",
    "br",
    "c",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "z",
]
VOWELS = ["a", "e", "i", "o", "u"]
MIDDLES_BEFORE_VOWEL = ["l", "r", "n", "m", "v", "d", "s", "lv", "rn", "nd", "rv", "lm", "st", "ld"]
MIDDLES_BEFORE_CONSONANT = ["l", "r", "n", "s"]

# For each list: how many words, and the endings that give the list its sound.
ENDINGS: dict[str, tuple[int, list[str]]] = {
    "person_first": (110, ["en", "in", "a", "is", "wen", "iel", "eth", "on", "ia", "ric", "ora", "lyn"]),
    "person_last": (150, ["o", "ik", "ard", "ell", "mont", "wick", "low", "ane", "esk", "over", "ey", "quist"]),
    "work_noun": (90, ["ine", "ade", "ora", "ume", "eth", "ance", "olt", "ire", "ora", "elle", "isk"]),
    "country_first": (30, ["a", "o", "u", "an", "el"]),
    "country_second": (90, ["ia", "ana", "ova", "eno", "istar", "aria", "olia", "uay", "igo", "mark"]),
    "city_noun": (100, ["burg", "ton", "mar", "ford", "haven", "polis", "stad", "mouth", "by", "wick", "dale"]),
    "institution_noun": (100, ["ell", "ax", "ent", "ora", "ium", "eck", "ander", "olt", "ius", "ett"]),
    "genre_adjective": (60, ["ic", "ian", "esque", "ive", "ine"]),
}

# Read and removed by hand: existing names, brands, words with a meaning, or words too close to one.
STRUCK_OUT = {
    "dunton",
    "dinton",
    "haston",
    "henwick",
    "panova",
    "thuria",
    "radia",
    "wisana",
    "merana",
    "trivium",
    "bedeck",
    "pendora",
    "trevax",
    "randolt",
    "pornander",
    "hestia",
    "kenlyn",
    "leslyn",
    "giva",
    "puma",
    "rasta",
    "hasten",
    "goria",
    "neron",
    "gandia",
    "jolia",
    "hindiel",
    "donell",
    "covell",
    "hovell",
    "purell",
    "levey",
    "servey",
    "mano",
    "lavo",
    "caney",
    "vulvive",
    "penine",
    "pinine",
    "pinic",
    "tidive",
    "sadian",
    "mumic",
    "belive",
    "cumire",
    "pudade",
    "horton",
    "forby",
    "linby",
    "tunton",
    "wenton",
    "hardale",
    "hanburg",
    "bulford",
    "basta",
    "festa",
    "pasa",
    "vena",
    "tunia",
    "bidin",
    "servia",
    "ninon",
    "manlyn",
    "benard",
    "barard",
    "rando",
    "loney",
    "luney",
    "maney",
    "pesto",
    "pindik",
    "porney",
    "todo",
    "favo",
    "fedell",
    "darey",
    "damey",
    "perney",
    "rastey",
    "godo",
    "wandell",
    "relo",
    "tama",
    "dasa",
    "dilo",
    "misa",
    "kinia",
    "davia",
    "palia",
    "monia",
    "hodia",
    "hunia",
    "wamia",
    "malmana",
    "jomana",
    "zorana",
    "bodine",
    "nidian",
    "konic",
    "dadian",
    "larvesque",
    "noment",
    "desius",
    "hildell",
    "mendent",
    "samora",
    "sinora",
    "lisora",
    "pusora",
    "mondora",
    "humium",
    "bovine",
    "moline",
    "limire",
    "listine",
    "minance",
    "hivisk",
    "selisk",
    "sasora",
    "lanlow",
    "redian",
    "musive",
    "fonda",
    "tina",
    "mellow",
    "trolo",
    "rivard",
    "rurik",
    "sastard",
    "faney",
    "zesto",
    "lesisk",
    "trista",
    "bosora",
    "brenin",
}


def invent(count: int, endings: list[str], taken: set[str], rng: random.Random) -> list[str]:
    """`count` new lower-case words of 4 to 9 letters; none is a prefix or a suffix of another word in the list."""
    words: list[str] = []
    while len(words) < count:
        ending = rng.choice(endings)
        middles = MIDDLES_BEFORE_VOWEL if ending[0] in "aeiou" else MIDDLES_BEFORE_CONSONANT
        word = rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(middles) + ending
        if not 4 <= len(word) <= 9 or word in taken or word in STRUCK_OUT:
            continue
        if any(a.startswith(b) or a.endswith(b) for w in words for a, b in ((word, w), (w, word))):
            continue
        taken.add(word)
        words.append(word)
    return sorted(words)


def main() -> None:
    """Print the lists of words as YAML."""
    taken: set[str] = set()
    lists = {
        name: invent(count, endings, taken, random.Random(f"{SEED} {name}"))
        for name, (count, endings) in ENDINGS.items()
    }
    yaml.safe_dump(lists, sys.stdout, default_flow_style=None, width=110)


if __name__ == "__main__":
    main()
