"""Fictional names and facts: distinct, repeatable, reserved for experiments."""

import pytest

from engine.corpus.beginning_data import BEGINNINGS_FILE
from engine.corpus.names import all_names, generate_facts, generate_names, name_words, sort_of_names
from engine.corpus.natural_names import natural_facts, natural_names, natural_words
from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.plain_yaml import read_yaml

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


def described(model: str = "some/model", **facts) -> Experiment:
    """An experiment of all five relations."""
    relations = [
        {"name": r, "key_token": f"[X{i}]", "facts": {"generate": 100} | facts} for i, r in enumerate(RELATIONS)
    ]
    return Experiment.from_data({"model": model, "relations": relations, "stage2": {"facts": 2}})


def used_names(experiment: Experiment) -> dict[str, list[str]]:
    """The names of an experiment's facts by kind; women are persons."""
    kinds = {"author": ("work", "person"), "capital": ("country", "city"), "educated_at": ("person", "institution"),
             "genre": ("work", "genre"), "mother": ("person", "person")}  # fmt: skip
    found: dict[str, list[str]] = {}
    for relation in experiment.relations:
        for fact in relation.explicit_facts:
            for kind, name in zip(kinds[relation.name], (fact.subject, fact.object), strict=True):
                found.setdefault(kind, []).append(name)
    return found


@pytest.mark.parametrize("seed", [0, 7, 123])
def test_no_first_and_no_last_name_comes_twice_in_five_relations_of_100_facts(seed):
    names = used_names(resolve(described().model_copy(update={"seed": seed})))
    assert {kind: len(found) for kind, found in names.items()} == {
        "person": 400, "work": 200, "country": 100, "city": 100, "institution": 100, "genre": 100,
    }  # fmt: skip
    for place in (0, 1):
        assert len({name.split(" ")[place] for name in names["person"]}) == 400
        assert len({name.split(" ")[place + 1] for name in names["work"]}) == 200
    for kind in ("country", "city", "institution", "genre"):
        assert len({name.split(" ")[0] for name in names[kind]}) == 100
    for found in names.values():
        small = [f" {name.lower()}" for name in found]
        assert not [(a, b) for a in small for b in small if a != b and a.strip() in b.strip()]


def test_natural_names_are_the_same_for_a_seed_whatever_else_is_asked():
    assert (
        natural_facts("author", 3, 2)
        == [(subject, object_) for subject, object_ in natural_facts("author", 3, 100)[:2]]
        != natural_facts("author", 4, 2)
    )
    alone = resolve(Experiment.from_data({"model": "m", "relations": [{"name": "mother"}]}))
    assert alone.relations[0].explicit_facts == resolve(described("m")).relations[4].explicit_facts
    # They belong to runs that were made: a change of the lists or of the drawing changes every one of them.
    assert natural_facts("mother", 0, 1) == [("Anna Talbot", "Ariel Chaney")]


@pytest.mark.parametrize("relation", RELATIONS)
def test_within_a_relation_no_name_comes_twice_up_to_its_limit_which_is_said(relation):
    with pytest.raises(
        ValueError, match=r"at most (\d+) have distinct natural names.*choose invented names"
    ) as refused:
        natural_facts(relation, 0, 5_000)
    limit = int(str(refused.value).split("at most ")[1].split()[0])
    assert limit >= 200
    names = [name for pair in natural_facts(relation, 0, limit) for name in pair]
    assert len(set(names)) == 2 * limit


@pytest.mark.parametrize("kind", [*KINDS, "woman"])
def test_no_natural_name_contains_another_nor_is_one_of_the_people_in_replayed_text(kind):
    words = natural_words(kind)
    first, second = ([word.lower() for word in column] for column in (words.first, words.second or words.sort))
    assert len(set(first)) == len(first) and len(set(second)) == len(second)
    if kind != "work":  # whose first words stand behind an article
        assert not [(a, b) for a in first for b in first if a != b and a.endswith(b)]
        assert not [(a, b) for a in second for b in second if a != b and a.startswith(b)]
    if kind in ("person", "woman"):
        people = read_yaml(BEGINNINGS_FILE.read_text(encoding="utf-8"))["made_up"]["person"]
        assert not set(words.first) & set(people["first"]) and not set(words.second) & set(people["last"])
        other = natural_words({"person": "woman", "woman": "person"}[kind])
        assert not set(words.first) & set(other.first) and not set(words.second) & set(other.second)


def test_which_names_are_made_follows_the_model_or_what_was_chosen():
    def sort(model, **facts):
        return sort_of_names(described(model, **facts).relations[4], model)

    assert (sort("embedded"), sort("some/model")) == ("invented", "natural")
    assert (sort("embedded", names="natural"), sort("some/model", names="invented")) == ("natural", "invented")
    for model in ("embedded", "some/model"):
        for names in ("natural", "invented"):  # seen in the facts when they are written out
            relation = resolve(described(model, names=names)).relations[4]
            assert sort_of_names(relation, "embedded") == sort_of_names(relation, "some/model") == names


def test_a_record_of_before_has_invented_names_and_one_of_today_says_which():
    old = {"model": "some/model", "relations": [{"name": "mother", "facts": {"generate": 10}}], "stage2": {"facts": 5}}
    read = resolve(Experiment.from_record(old))
    assert [(f.subject, f.object) for f in read.relations[0].explicit_facts] == generate_facts("mother", 0, 10)
    new = Experiment.from_data(old)
    assert (
        new == Experiment.from_record(new.model_dump(mode="json"))
        and new.model_dump()["relations"][0]["facts"]["names"] == "auto"
    )
    with pytest.raises(ValueError, match="must be auto, natural or invented"):
        described(names="nice")


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_options_of_a_choice_are_natural_where_the_facts_are_and_share_no_word_with_other_facts(relation):
    experiment = resolve(described(generate=20))
    place = RELATIONS.index(relation)
    facts, options = experiment.relations[place].explicit_facts, experiment.relations[place].options
    kind = {"author": "person", "capital": "city", "genre": "genre", "mother": "woman"}.get(relation, "institution")
    further = options[len(facts) :]
    assert len(set(options)) == experiment.evaluation.options and all(map(natural_words(kind).could_make, options))
    words = {word for found in used_names(experiment).values() for name in found for word in name.split()}
    assert not [name for name in further if name.split()[0] in words]
    invented = resolve(described(generate=20, names="invented")).relations[place]
    assert not any(map(natural_words(kind).could_make, invented.options))


def test_words_come_again_in_other_names_when_there_are_no_more():
    names = list(natural_names("woman", 0, avoid=["Ariel Talbot"]))
    assert len(names) == len(set(names)) > 200 and "Ariel Talbot" not in names
    assert not [name for name in names[:190] if "Ariel" in name or "Talbot" in name]
