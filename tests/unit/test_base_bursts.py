"""Passing subjects: always so many, always new ones, never a reserved name."""

import random
from collections import Counter

import pytest
import yaml

from engine.base import WEIGHTS
from engine.base.bursts import Bursts
from engine.base.phrasings import NAME_KINDS, relations_of, world_data
from engine.base.tokenizer import SUBJECT_KINDS
from engine.base.world import World
from engine.corpus.names import all_names, name_words

CONFIG = yaml.safe_load((WEIGHTS.parent / "config.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def world():
    return World(**CONFIG["world"] | {"entities": 4, "answers": 8})


def _drawn(bursts: Bursts, draws: int = 400) -> dict[str, set[str]]:
    """Subject → relations, of what is spoken of now."""
    spoken: dict[str, set[str]] = {}
    for fact in (bursts.draw() for _ in range(draws)):
        spoken.setdefault(fact.subject, set()).add(fact.relation)
    return spoken


def test_so_many_subjects_of_each_kind_are_spoken_of_in_all_their_relations(world):
    spoken = _drawn(Bursts(world, random.Random(0), subjects=2, lifetime=60, known=1.0), draws=2000)
    of_kind = {kind: set(relations_of(kind)) for kind in SUBJECT_KINDS}
    kinds = Counter(kind for relations in spoken.values() for kind in SUBJECT_KINDS if relations == of_kind[kind])
    assert kinds == dict.fromkeys(SUBJECT_KINDS, 2)


def test_of_a_subject_that_is_known_in_part_the_rest_is_said_to_be_unknown(world):
    bursts = Bursts(world, random.Random(0), subjects=20, lifetime=600, known=0.6)
    facts = {(f.subject, f.relation): f for f in (bursts.draw() for _ in range(6000))}.values()
    not_known = set(world_data()["unknown_answers"].values())
    assert all((f.object in not_known) != f.known for f in facts)
    assert 0.5 < sum(f.known for f in facts) / len(facts) < 0.7
    of_one = {f.known for f in facts if f.subject == next(iter(facts)).subject}
    assert of_one == {True, False}


def test_a_subject_leaves_after_its_lifetime_and_others_come(world):
    bursts = Bursts(world, random.Random(0), subjects=2, lifetime=60, known=1.0)
    before = set(_drawn(bursts))
    for step in range(1, 31):
        bursts.step(step)
    halfway = set(_drawn(bursts))
    for step in range(31, 61):
        bursts.step(step)
    assert len(before & halfway) == 3
    assert not before & set(_drawn(bursts))


def test_passing_subjects_are_neither_the_worlds_nor_reserved(world):
    known = {fact.subject for fact in world.facts}
    reserved = {name for kind in NAME_KINDS for name in all_names(kind)}
    for kind in SUBJECT_KINDS:
        names = {world.passing_name(kind) for _ in range(200)}
        assert len(names) > 100
        assert not names & (known | reserved)
    fact = world.new_fact("Somebody", "mother")
    assert fact.object not in reserved and len(fact.phrasings) == CONFIG["world"]["phrasings_per_fact"]
    assert world_data()["relations"][fact.relation]["object"] == "person"


def test_some_answers_about_passing_subjects_are_said_of_nobody_else(world):
    reserved = {name for kind in NAME_KINDS for name in all_names(kind)}
    pool = {world.new_fact("Somebody", "mother").object for _ in range(400)}
    answers = [world.passing_fact("Somebody", "mother").object for _ in range(1000)]
    new = [answer for answer in answers if answer not in pool]
    share = CONFIG["world"]["passing_new_answers"]
    assert share - 0.1 < len(new) / len(answers) < share + 0.1
    assert len(set(new)) > 0.9 * len(new)
    assert not set(new) & reserved
    years = {world.new_fact("Somebody", "birth_year").object for _ in range(2000)}
    assert {world.passing_fact("Somebody", "birth_year").object for _ in range(50)} <= years


def test_every_word_of_a_name_is_sometimes_an_answer(world):
    """A word that never was one can hardly be said when a new fact wants it."""
    objects = {data["object"] for data in world_data()["relations"].values()} & NAME_KINDS
    for kind in objects:
        relation = next(name for name, data in world_data()["relations"].items() if data["object"] == kind)
        said = {word for _ in range(8000) for word in world.passing_fact("Somebody", relation).object.split()}
        assert not {word for words in name_words(kind) for word in words} - said
