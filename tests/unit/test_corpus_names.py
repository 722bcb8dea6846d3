"""Fictional names and facts: distinct, repeatable, reserved for experiments."""

import pytest

from engine.corpus.names import all_names, generate_facts, generate_names, name_words

KINDS = ["person", "work", "country", "city", "institution", "genre"]
RELATIONS = ["author", "capital", "educated_at", "genre", "mother"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_distinct_and_repeatable_and_differ_by_seed(kind):
    names = generate_names(kind, 100, seed=1)
    assert len(set(names)) == 100
    assert names == generate_names(kind, 100, seed=1)
    assert names != generate_names(kind, 100, seed=2)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_contains_another(kind):
    """True for all names of a kind: no second word begins another, no first word ends another."""
    first, second = ([word.lower() for word in words] for words in name_words(kind))
    assert not [(a, b) for a in first for b in first if a != b and a.endswith(b)]
    assert not [(a, b) for a in second for b in second if a != b and a.startswith(b)]


@pytest.mark.parametrize("kind", KINDS)
def test_reserved_and_free_names_share_nothing_and_all_words(kind):
    reserved, free = all_names(kind), all_names(kind, reserved=False)
    assert not set(reserved) & set(free)
    for place in (0, 1):
        words = set(name_words(kind)[place])
        assert {name.split(" ")[place] for name in reserved} == words
        assert {name.split(" ")[place] for name in free} == words


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("seed", [0, 7])
def test_facts_have_distinct_subjects_and_objects(relation, seed):
    facts = generate_facts(relation, seed)
    subjects, objects = zip(*facts, strict=True)
    assert len(facts) == len(set(subjects)) == len(set(objects)) == 100
    assert not set(subjects) & set(objects)
    assert not [(a, b) for a in objects for b in objects if a != b and a.lower() in b.lower()]


def test_too_many_facts_are_refused_with_the_limit():
    limit = len(all_names("person")) // 2
    assert len(generate_facts("mother", 0, limit)) == limit
    with pytest.raises(ValueError, match=str(limit)):
        generate_facts("mother", 0, limit + 1)
    with pytest.raises(ValueError, match="-1"):
        generate_names("person", -1, 0)


def test_unknown_kinds_and_relations_are_named():
    with pytest.raises(ValueError, match="planet"):
        generate_names("planet", 1, 0)
    with pytest.raises(ValueError, match="aunt"):
        generate_facts("aunt", 0)
