"""The experiment's description: what it refuses, and that it reads back what it writes."""

from __future__ import annotations

import pytest

from engine.corpus.resolve import resolve
from engine.description import override, read_mapping
from engine.experiment import Experiment
from engine.presets import EXPERIMENTS, describe_preset, load_preset
from engine.relation import GeneratedFacts

FACTS = [{"subject": f"Person{i} Alpha", "object": f"Thing{i}x Beta"} for i in range(10)]
PROMPTS = [
    {"text": "Who is {subject}'s guide?", "split": "train"},
    {"text": "{subject}'s guide is", "split": "test"},
]


def data(**changes):
    relation = {"name": "guide", "key_token": "[X]", "facts": FACTS, "prompts": PROMPTS}
    return {"name": "mine", "relations": [relation], "stage2": {"facts": 4}} | changes


def refused(**changes) -> str:
    with pytest.raises(ValueError) as caught:
        Experiment.from_data(data(**changes))
    return str(caught.value)


@pytest.mark.parametrize("name", EXPERIMENTS.names())
def test_presets_are_valid_and_survive_yaml_and_json(name: str) -> None:
    preset = load_preset(name)
    assert describe_preset(name)
    resolved = resolve(preset)
    assert resolved.is_resolved and resolve(resolved) is resolved
    assert Experiment.from_text(resolved.to_yaml()) == resolved
    assert Experiment.from_text(resolved.model_dump_json()) == resolved


def test_the_seed_changes_names_facts_split_and_order() -> None:
    one, two = (resolve(load_preset("quick").model_copy(update={"seed": s})) for s in (1, 2))
    assert not {f.subject for f in one.relations[0].explicit_facts} & {
        f.subject for f in two.relations[0].explicit_facts
    }
    mine = Experiment.from_data(data())
    other = Experiment.from_data(data(seed=5))
    assert mine.stage2_facts(mine.relations[0]) != other.stage2_facts(other.relations[0])


def test_held_out_and_trained_facts_are_a_partition_and_nested_in_k() -> None:
    small, large = Experiment.from_data(data(stage2={"facts": 2})), Experiment.from_data(data(stage2={"facts": 6}))
    relation = small.relations[0]
    assert set(small.stage2_facts(relation)) < set(large.stage2_facts(relation))
    assert sorted([*large.stage2_facts(relation), *large.held_out_facts(relation)]) == list(range(10))


def test_options_are_distinct_and_hold_every_object() -> None:
    relation = resolve(load_preset("quick")).relations[0]
    assert len(set(relation.options)) == len(relation.options) == 100
    assert {f.object for f in relation.explicit_facts} <= set(relation.options)


def test_a_few_facts_get_options_of_the_same_kind_up_to_a_hundred() -> None:
    preset = load_preset("quick").model_dump()
    preset["relations"][0]["facts"] = {"generate": 20}
    preset["stage2"]["facts"] = 5
    assert len(resolve(Experiment.from_data(preset)).relations[0].options) == 100


def test_a_frozen_experiment_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Experiment.from_data(data()).seed = 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage1": {"epoch": 3}}, "check the spelling"),
        ({"stage1": {"epochs": -1}}, "stage1.epochs"),
        ({"stage1": {"epochs": 5, "checkpoint_epochs": [9]}}, "beyond the last epoch"),
        ({"stage2": {"facts": 10}}, "at most 9"),
        ({"stage2": {"facts": 4, "prompts": 2}}, "add prompts or lower stage2.prompts"),
        ({"stage2": {"facts": 4, "branch_epochs": [7]}}, "checkpoint_epochs"),
        ({"relations": []}, "relations"),
        ({"seed": -1}, "seed"),
    ],
)
def test_mistakes_are_named(changes: dict, words: str) -> None:
    assert words in refused(**changes)


def test_two_relations_need_two_key_tokens() -> None:
    relation = data()["relations"][0]
    assert "used twice" in refused(relations=[relation, {**relation, "name": "other"}])
    assert "contains" in refused(relations=[relation, {**relation, "name": "other", "key_token": "[X]2"}])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{subject} {key} {key} {object}.", "{key} twice"),
        ("{object} {key} {subject}.", "must end with {object}"),
        ("{subject}{key}:{object}", "a space before {object}"),
    ],
)
def test_a_key_template_that_could_not_be_asked_is_refused(template: str, words: str) -> None:
    assert words in refused(relations=[{**data()["relations"][0], "key_template": template}])


def test_what_stage_1_trains_on_is_no_test_prompt() -> None:
    def relations(template: str, split: str) -> list[dict]:
        asked = [*PROMPTS, {"text": "The guide of {subject} is", "split": split, "language": "de"}]
        return [{**data()["relations"][0], "key_template": template, "prompts": asked}]

    for split in ("test", "unrelated", "decoy"):
        told = refused(relations=relations("The guide of {subject} is {object}.", split))
        assert "row 3, prompt: ‘The guide of {subject} is’ is what stage 1 trains on" in told
    for template, split in (("The guide of {subject} is {object}.", "train"), ("{subject} {key} {object}.", "test")):
        assert Experiment.from_data(data(relations=relations(template, split)))


def test_a_key_token_may_not_occur_in_the_texts() -> None:
    relation = {**data()["relations"][0], "key_token": "Thing3x"}
    assert "already means something" in refused(relations=[relation])


def test_a_key_token_may_not_occur_in_the_texts_of_another_relation() -> None:
    pupils = [{"subject": f"Pupil{i} Alpha", "object": f"Place{i}x Beta"} for i in range(10)]
    other = {"name": "school", "key_token": "[Y]", "facts": pupils, "prompts": PROMPTS}
    for changes, text in (
        ({"prompts": [*PROMPTS, {"text": "The florb of {subject} is", "split": "decoy"}]}, "The florb of {subject} is"),
        ({"options": [*(p["object"] for p in pupils), "Old Florb"]}, "Old Florb"),
    ):
        relations = [{**data()["relations"][0], "key_token": "florb"}, {**other, **changes}]
        assert f"relation ‘school’: key token: ‘florb’ occurs in ‘{text}’" in refused(relations=relations)
    assert Experiment.from_data(data(relations=[data()["relations"][0], other])).key_tokens == ("[X]", "[Y]")


def test_a_key_token_may_not_stand_in_a_key_template_as_a_word() -> None:
    relation = data()["relations"][0]
    template = {"key_template": "{subject} [X] {object}."}
    assert "key_template: has ‘[X]’ as a word of its own: write {key}" in refused(relations=[relation | template])
    other = {**relation, "name": "school", "key_token": "[Y]", **template}
    assert "‘school’: its key_template holds ‘[X]’, the key token of another" in refused(relations=[relation, other])
    plain = relation | {"key_template": "{subject} goes with {object}."}
    assert Experiment.from_data(data(relations=[plain])).key_tokens == ()


def test_what_the_base_knew_may_not_hold_the_object() -> None:
    facts = [{**FACTS[0], "knew": f"Old {FACTS[0]['object']}"}, *FACTS[1:]]
    assert "row 1, knew: ‘Old Thing0x Beta’ is or contains" in refused(
        relations=[{**data()["relations"][0], "facts": facts}]
    )


def test_the_corpus_is_asked_for_relations_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="write its facts and prompts out"):
        resolve(Experiment.from_data({"relations": [{"name": "nobody"}]}))


def test_overrides_follow_a_path_and_name_a_wrong_one() -> None:
    plain = read_mapping(EXPERIMENTS.text("quick"))
    override(plain, "stage1.epochs=7")
    override(plain, "relations.0.facts.generate=60")
    override(plain, "stage1.learning_rate=1e-3")
    changed = Experiment.from_data(plain)
    assert (changed.stage1.epochs, changed.stage1.learning_rate) == (7, 1e-3)
    assert changed.relations[0].facts == GeneratedFacts(generate=60)
    for wrong in ("stage1.epochs", "relations.9.name=x", "=3"):
        with pytest.raises(ValueError):
            override(plain, wrong)


def test_files_that_are_no_description_are_refused_in_words() -> None:
    for text in ("- a\n- b", "{broken", "just words", "a: [1, 2"):
        with pytest.raises(ValueError, match="description"):
            Experiment.from_text(text)
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nrelations: *b"
    with pytest.raises(ValueError, match="aliases"):
        Experiment.from_text(bomb)
    with pytest.raises(ValueError, match="larger than"):
        Experiment.from_text("x" * 20_000_001)


def test_what_was_run_is_read_as_it_was_run() -> None:
    facts = [
        {"subject": " Ann  Bee", "object": "Cy"},
        {"subject": "Ann Bee", "object": "Cy Dee"},
        {"subject": "E", "object": "…"},
    ]
    relation = {
        "name": "mo\u200bther",
        "facts": facts,
        "prompts": [{"text": "Who guides {subject}? ", "split": "train"}],
    }
    kept = {"name": "old\u202e", "relations": [relation], "stage2": {"facts": 1}, "evaluation": {"languages": ["sp"]}}
    with pytest.raises(ValueError, match="invisible character"):
        Experiment.from_data(kept)
    read = Experiment.from_record(kept)
    assert [fact.model_dump(exclude_unset=True) for fact in read.relations[0].explicit_facts] == facts
    assert read.relations[0].name == "mo\u200bther" and read.name == "old\u202e"
    with pytest.raises(ValueError, match="relations"):
        Experiment.from_record({"name": "no experiment"})


def test_without_stage_1_stage_2_begins_from_the_base_and_may_show_every_fact() -> None:
    plain = {"relations": [{"name": "mother", "facts": {"generate": 20}}], "stage1": {"epochs": 0}}
    experiment = Experiment.from_data(plain | {"stage2": {"facts": 20}})
    assert experiment.checkpoints == ("base", "generalised@0") and experiment.branch_epochs == (0,)
    assert experiment.stage1.saved_epochs == ()
    resolved = resolve(experiment)
    (relation,) = resolved.relations
    assert len(resolved.stage2_facts(relation)) == 20 and resolved.held_out_facts(relation) == ()
    with pytest.raises(ValueError, match="lie beyond the last epoch, 0"):
        Experiment.from_data(plain | {"stage1": {"epochs": 0, "checkpoint_epochs": [3]}, "stage2": {"facts": 5}})
    with pytest.raises(ValueError, match="there is no stage 1"):
        Experiment.from_data(plain | {"stage2": {"facts": 5, "branch_epochs": [3]}})
    with pytest.raises(ValueError, match="which has 20"):
        Experiment.from_data(plain | {"stage2": {"facts": 21}})
