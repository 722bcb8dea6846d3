"""Every way in which the synthetic world states a fact: frames × nouns, and the relations' own phrasings.

The words are data (`world.yaml`). The test prompts of the corpus are left out (`stated_phrasings`): they are the
combinations that pre-training never shows for their relation, though it shows their frame and their noun.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.corpus.relations import LANGUAGES, load_relations

WORLD_FILE = Path(__file__).with_name("world.yaml")
NAME_KINDS = {"person", "work", "country", "city", "institution", "genre"}  # the others are closed lists of words
NAMED_KINDS = {"person", "city", "institution"}  # kinds of answer that suit "What is the name of …?"


@cache
def world_data() -> dict[str, Any]:
    """The parsed `world.yaml`."""
    return yaml.safe_load(WORLD_FILE.read_text(encoding="utf-8"))


def _german(noun: str) -> tuple[str, str, str]:
    """Nominative, genitive and accusative, with articles, of "nominative | genitive | accusative"."""
    nominative, *rest = (form.strip() for form in noun.split("|"))
    article, word = nominative.split(" ", 1)
    if not rest and article != "die":
        raise ValueError(f"world.yaml: the German noun {noun!r} needs its genitive, as in 'der Vater | des Vaters'")
    genitive = rest[0] if rest else f"der {word}"
    accusative = rest[1] if len(rest) > 1 else f"den {word}" if article == "der" else nominative
    return nominative, genitive, accusative


def _spanish_of(noun: str) -> str:
    """ "el autor" → "del autor", "la madre" → "de la madre"."""
    return f"d{noun}" if noun.startswith("el ") else f"de {noun}"


def noun_forms(language: str, noun: str) -> dict[str, str]:
    """The slots of a frame that a noun of `world.yaml` fills."""
    if language == "de":
        the_noun, of_the_noun, noun_acc = _german(noun)
        forms = {"the_noun": the_noun, "of_the_noun": of_the_noun, "noun_acc": noun_acc}
    elif language == "es":
        forms = {"the_noun": noun, "of_the_noun": _spanish_of(noun)}
    else:
        return {"noun": noun}
    return forms | {"The_noun": forms["the_noun"][0].upper() + forms["the_noun"][1:]}


def _question_word(relation: dict[str, Any], language: str) -> str:
    words = world_data()["question_words"][language]
    return words.get(relation.get("asks"), words.get(relation["object"], words["other"]))


@cache
def composed_phrasings(relation: str, language: str) -> tuple[str, ...]:
    """Every frame of `language` filled with every noun of `relation`: templates with `{subject}`."""
    data = world_data()["relations"][relation]
    frames = world_data()["frames"][language]
    who = _question_word(data, language)
    chosen = frames["all"] + (frames["names"] if data["object"] in NAMED_KINDS else [])
    return tuple(
        frame.format(subject="{subject}", who=who, Who=who.capitalize(), **noun_forms(language, noun))
        for frame in chosen
        for noun in data["nouns"][language]
    )


def _without_test_prompts(relation: str, language: str, phrasings: Iterable[str]) -> tuple[str, ...]:
    corpus = load_relations().get(relation)
    held_out = set(corpus.prompts.test[language]) if corpus else set()
    return tuple(p for p in phrasings if p not in held_out)


@cache
def own_phrasings(relation: str, language: str) -> tuple[str, ...]:
    """How `relation` is said in words of its own ("Who gave birth to …?"), without the corpus's test prompts."""
    own = world_data()["relations"][relation].get("phrasings", {}).get(language, [])
    return _without_test_prompts(relation, language, own)


@cache
def stated_phrasings(relation: str, language: str) -> tuple[str, ...]:
    """What pre-training may state a fact of `relation` with: everything but the corpus's test prompts."""
    composed = _without_test_prompts(relation, language, composed_phrasings(relation, language))
    return composed + own_phrasings(relation, language)


def pieces(language: str) -> list[str]:
    """The frames cut at their slots, the nouns and the question words of `language`: what the tokenizer must know.

    Cut, so that no token spans a frame and a noun: combinations that were never stated then have known tokens.
    """
    data = world_data()
    out: list[str] = [*data["question_words"][language].values(), data["unknown_answers"][language]]
    templates = [frame for frames in data["frames"][language].values() for frame in frames]
    for relation in data["relations"].values():
        out += [form for noun in relation["nouns"][language] for form in noun_forms(language, noun).values()]
        templates += relation.get("phrasings", {}).get(language, [])
    for template in templates:
        text = template
        while "{" in text:
            before, rest = text.split("{", 1)
            out.append(before)
            text = rest.split("}", 1)[1]
        out.append(text)
    return [piece for piece in out if piece.strip()]


def relations_of(subject_kind: str) -> list[str]:
    """The relations whose subjects are of `subject_kind`, in the order of `world.yaml`."""
    return [name for name, data in world_data()["relations"].items() if data["subject"] == subject_kind]


assert set(LANGUAGES) == set(world_data()["languages"]), "world.yaml must know the languages of the corpus"
