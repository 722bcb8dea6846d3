"""The synthetic world: well-formed phrasings, the same from the same seed, nothing of an experiment in it."""

import random
import re

import pytest
import yaml

from engine.base import WEIGHTS
from engine.base.foreign import foreign_name
from engine.base.phrasings import (
    NAME_KINDS,
    composed_phrasings,
    noun_forms,
    own_phrasings,
    stated_phrasings,
    world_data,
)
from engine.base.world import World
from engine.corpus.names import all_names
from engine.corpus.relations import LANGUAGES, load_relations

CONFIG = yaml.safe_load((WEIGHTS.parent / "config.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def world():
    return World(**CONFIG["world"])


def test_pre_training_never_uses_a_reserved_name_or_a_key_token(world):
    reserved = {name for kind in NAME_KINDS for name in all_names(kind)}
    keys = [relation.key_token for relation in load_relations().values()]
    for fact in world.facts:
        assert fact.subject not in reserved
        assert fact.object not in reserved
        for text in (fact.subject, fact.object, *fact.phrasings):
            assert not any(key in text for key in keys)
            assert "[" not in text


def test_no_fact_is_stated_in_a_test_prompt(world):
    held_out = {
        (name, prompt.text)
        for name, relation in load_relations().items()
        for prompt in relation.iter_prompts()
        if prompt.split == "test"
    }
    assert not [fact for fact in world.facts for text in fact.phrasings if (fact.relation, text) in held_out]


def test_each_fact_is_stated_in_few_phrasings_and_most_are_english(world):
    assert {len(fact.phrasings) for fact in world.facts} == {CONFIG["world"]["phrasings_per_fact"]}
    english = [text in stated_phrasings(f.relation, "en") for f in world.facts for text in f.phrasings]
    assert 0.55 < sum(english) / len(english) < 0.65


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_relation_is_often_stated_in_its_own_words(world, language):
    stated = [
        text in own_phrasings(fact.relation, language)
        for fact in world.facts
        for text in fact.phrasings
        if own_phrasings(fact.relation, language) and text in stated_phrasings(fact.relation, language)
    ]
    assert sum(stated) / len(stated) > 0.25  # a frame with a noun is one of dozens


def test_the_same_seed_makes_the_same_world(world):
    assert World(**CONFIG["world"]).facts == world.facts
    assert World(**CONFIG["world"] | {"seed": 1}).facts != world.facts


@pytest.mark.parametrize("language", LANGUAGES)
def test_phrasings_have_one_subject_and_no_open_slot(language):
    for relation in world_data()["relations"]:
        phrasings = stated_phrasings(relation, language)
        assert phrasings
        for text in phrasings:
            assert re.findall(r"\{\w*\}", text) == ["{subject}"], text
            assert "  " not in text and text == text.strip(), text


def test_spanish_contractions_and_german_cases():
    assert noun_forms("es", "el autor")["of_the_noun"] == "del autor"
    assert noun_forms("es", "la madre")["of_the_noun"] == "de la madre"
    mother = noun_forms("de", "die Mutter")
    assert (mother["of_the_noun"], mother["noun_acc"], mother["The_noun"]) == ("der Mutter", "die Mutter", "Die Mutter")
    assert noun_forms("de", "der Autor | des Autors")["noun_acc"] == "den Autor"
    assert noun_forms("de", "der Gatte | des Gatten | den Gatten")["noun_acc"] == "den Gatten"
    for text in composed_phrasings("author", "de"):
        assert "Name der Autor" not in text and "mir der " not in text
    for text in (*composed_phrasings("author", "es"), *composed_phrasings("capital", "es")):
        assert " de el " not in text


def test_a_german_noun_without_its_genitive_is_refused():
    with pytest.raises(ValueError, match="der Vater"):
        noun_forms("de", "der Vater")


def test_foreign_names_have_one_to_three_words():
    rng = random.Random(0)
    names = [foreign_name("work", rng) for _ in range(200)]
    assert {len(name.split()) for name in names} == {1, 2, 3}
    assert all(word[0].isupper() for name in names for word in name.split())
    assert foreign_name("genre", rng).islower()
