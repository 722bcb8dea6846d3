"""The evidence behind the embedded base: its trials, and the tables of their counts."""

import json
from typing import Any

import pytest
import torch

from engine.base import WEIGHTS
from engine.base.facts import Question
from engine.corpus.names import all_names
from engine.corpus.relations import load_relation
from engine.corpus.resolve import resolve
from engine.models.loading import load_base, prepare_for_training
from engine.presets import load_preset
from engine.training.sequences import stage1_sequences, stage2_sequences
from tools.recipe_search.__main__ import main
from tools.recipe_search.evaluate import cells_of, evaluate, own_facts
from tools.recipe_search.questions import question_groups
from tools.recipe_search.tables import all_tables, difference_line, share_with_interval, two_digits
from tools.recipe_search.trials import (
    RELATIONS,
    ask,
    ask_groups,
    experiment_about,
    fit,
    held_out_groups,
    two_stages,
)


def cell(hits, n=10, **fields):
    names = {"model": "a", "kind": "singly", "relation": "mother", "seed": 0, "moment": "after 20", "group": "test"}
    return names | fields | {"hits": hits, "n": n}


def test_question_groups_cover_all_splits():
    groups = question_groups(load_relation("mother"), [("Ada Quill", "Cody Ross")])
    assert {name: len(questions) for name, questions in groups.items()} == {
        "trained": 1,
        "train": 10,
        "test": 10,
        "de": 10,
        "es": 10,
        "zh": 10,
        "ja": 10,
        "unrelated": 3,
        "unrelated de": 3,
        "unrelated es": 3,
        "unrelated zh": 3,
        "unrelated ja": 3,
        "decoys": 4,
    }
    assert groups["trained"] == [Question("Who is Ada Quill's mother?", "Cody Ross")]


def test_only_facts_held_out_of_stage_2_are_asked_but_all_by_key():
    experiment = experiment_about("embedded", ["mother", "genre"], seed=4)
    groups = held_out_groups(experiment)
    assert len(groups["key"]) == 200 and len(groups["trained"]) == 100 and len(groups["train"]) == 1000
    for relation in experiment.relations:
        used = {relation.explicit_facts[i].object for i in experiment.stage2_facts(relation)}
        asked = {q.object for name, questions in groups.items() if name != "key" for q in questions}
        assert len(used) == 50 and not used & asked


def test_an_answer_counts_when_real_decoding_gives_the_object():
    experiment = experiment_about("embedded", ["mother"], seed=0)
    loaded = load_base(experiment)
    questions = own_facts(WEIGHTS)[:40]
    hits = ask(loaded, [*questions[:20], *(Question(q.prompt, "Somebody Else") for q in questions[20:])])
    assert not any(hits[20:])
    for question, hit in zip(questions[:20], hits[:20], strict=True):
        prompt = torch.tensor([loaded.tokenizer.encode(question.prompt)])
        causal: Any = loaded.causal
        reply = causal.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10)
        text = str(loaded.tokenizer.decode(reply[0, prompt.shape[1] :]))
        assert hit == (question.object.lower() in text.lower())
    assert sum(hits[:20]) >= 10  # it knows its own world


def about_forty_mothers():
    """The default experiment with fewer facts, for what does not depend on how many there are."""
    experiment = experiment_about("embedded", ["mother"], 1001)
    (relation,) = experiment.relations
    fewer = relation.model_copy(update={"facts": relation.explicit_facts[:40]})
    stage2 = experiment.stage2.model_copy(update={"facts": 20})
    return experiment.model_copy(update={"relations": (fewer,), "stage2": stage2})


def test_two_stages_tell_every_moment_and_repeat_themselves():
    own = own_facts(WEIGHTS)[:5]
    experiment = about_forty_mothers()
    first, second = (two_stages(experiment, own, epochs=(1, 12)) for _ in range(2))
    assert first == second
    assert list(first) == ["base", "before 1", "after 1", "before 12", "after 12", "after one fact"]
    assert len(first["after 12"]["own facts"]) == 5
    assert "ja" in first["after 12"] and "ja" not in first["after 1"]
    recall = {moment: sum(groups["key"]) for moment, groups in first.items()}
    assert recall["base"] <= 1 and recall["before 1"] < recall["before 12"] and recall["before 12"] > 24


def test_a_branch_in_the_midst_of_stage_1_is_trained_as_one_after_it():
    experiment = about_forty_mothers()
    experiment = experiment.model_copy(
        update={"stage1": experiment.stage1.model_copy(update={"epochs": 12, "trained_weights": ("mlp",)})}
    )
    branched = two_stages(experiment, [], epochs=(12,))["after 12"]
    loaded = prepare_for_training(load_base(experiment), experiment)
    fit(loaded, stage1_sequences(experiment, loaded), experiment.stage1, experiment.seed, "stage1")
    fit(loaded, stage2_sequences(experiment, loaded), experiment.stage2, experiment.seed, "stage2")
    assert branched == ask_groups(loaded, held_out_groups(experiment) | {"own facts": []})


def test_the_quick_preset_reaches_its_targets():
    experiment = resolve(load_preset("quick").model_copy(update={"seed": 1001}))
    outcome = two_stages(experiment, own_facts(WEIGHTS), epochs=(20,))
    share = {group: sum(hits) / len(hits) for group, hits in outcome["after 20"].items()}
    before = outcome["before 20"]["train"]
    assert share["key"] > 0.95
    assert share["train"] >= 0.60
    assert share["test"] >= 0.40
    assert share["unrelated"] <= 0.12
    assert share["train"] > sum(before) / len(before) + 0.1


def test_outside_names_are_distinct_and_unknown_to_the_word_lists():
    experiment = experiment_about("embedded", ["mother"], 3, outside=True)
    facts = experiment.relations[0].explicit_facts
    assert len({f.subject for f in facts}) == len({f.object for f in facts}) == 100
    assert not {f.subject for f in facts} & set(all_names("person"))


def test_outside_facts_make_an_experiment_whatever_the_seed():
    for seed in range(12):
        for relation in RELATIONS:  # raises where one object stands inside another
            experiment_about("embedded", [relation], seed, outside=True)


def test_trials_are_counted_and_kept(tmp_path, monkeypatch, capsys):
    cells = cells_of(WEIGHTS, "reversal and 2-hop", "all", 1001)
    assert {(c["moment"], c["group"], c["n"]) for c in cells} == {
        (moment, group, n)
        for moment in ("base", "before 20", "after 20")
        for group, n in (("reversal", 100), ("2-hop", 200))
    }
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(cells))
    monkeypatch.setattr("sys.argv", ["recipe_search", "table", str(file)])
    main()
    assert "| after 20 |" in capsys.readouterr().out


def test_trials_run_in_processes_of_their_own():
    said: list[str] = []
    cells = evaluate([WEIGHTS], [1001], relations=["mother"], kinds=["one-prompt SFT"], jobs=2, log=said.append)
    by_group = {c["group"]: c["hits"] / c["n"] for c in cells}
    assert len(said) == 1 and "one-prompt SFT mother seed 1001" in said[0]
    assert by_group["trained"] > 0.9  # what it was trained on
    assert by_group["key"] < 0.1  # it never met the key token


def test_a_mean_weighs_cells_and_its_interval_lies_around_it():
    cells = [cell(hits, model=model, seed=seed) for model in "abc" for seed, hits in enumerate((2, 4, 6))]
    mean, low, high, n = share_with_interval(cells)
    assert mean == pytest.approx(0.4) and n == 90
    assert 0.2 < low < 0.4 < high < 0.6
    alike = share_with_interval([cell(5, model=model, seed=seed) for model in "ab" for seed in range(3)])
    assert alike[:3] == pytest.approx((0.5, 0.5, 0.5))
    far = share_with_interval([cell(hits, model=model) for model, hits in (("a", 0), ("b", 10))])
    assert far[1] == 0 and far[2] == 1  # models that differ much leave little certain


@pytest.mark.parametrize(("value", "text"), [(0.07, ".07"), (1.0, "1.00"), (0.0, ".00")])
def test_shares_are_written_short(value, text):
    assert two_digits(value) == text


def test_two_stages_are_compared_with_tuning_on_the_same_facts():
    cells = [cell(8, seed=s) for s in range(3)] + [cell(5, seed=s, kind="one-prompt SFT") for s in range(3)]
    assert "+0.30 (+0.30 to +0.30), 3 pairs" in difference_line(cells)
    assert "### Singly" in all_tables(cells) and "+0.30" in all_tables(cells)
