"""The two-stage measurement of a base model."""

import copy
from pathlib import Path

import pytest
import torch

from engine.corpus.relations import load_relation
from engine.models.base import WEIGHTS
from engine.models.base.evaluate import STAGE1, WARM_UP_STEPS, Bench, measure, rate_factor, table, train, wilson
from engine.models.base.facts import Question, make_facts, question_groups
from engine.models.base.samples import IGNORED


@pytest.fixture(scope="module")
def bench():
    return Bench(Path(WEIGHTS))


def test_wilson_intervals():
    low, high = wilson(50, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 20)[0] == pytest.approx(0)
    assert wilson(20, 20)[1] == pytest.approx(1)


def test_the_rate_warms_up_and_falls_to_nothing():
    assert rate_factor(0, 100) == 1 / WARM_UP_STEPS
    assert rate_factor(WARM_UP_STEPS, 100) == 1
    assert rate_factor(100, 100) == pytest.approx(0)


@pytest.mark.parametrize("foreign", [False, True])
def test_facts_are_distinct(foreign):
    facts = make_facts(load_relation("mother"), 3, foreign)
    assert len({s for s, _ in facts}) == len({o for _, o in facts}) == 100


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
        "decoys": 4,
    }
    assert groups["trained"] == [Question("Who is Ada Quill's mother?", "Cody Ross")]


def test_samples_count_the_object_or_the_whole_text(bench):
    whole = bench.key_sample("Ada Quill", "Cody Ross")
    assert whole.labels == whole.ids and bench.key_id in whole.ids
    asked = bench.prompt_sample(Question("Who is Ada Quill's mother?", "Cody Ross"))
    assert asked.labels[: asked.labels.index(IGNORED) + 1] == [IGNORED]
    assert bench.tokenizer.decode([t for t in asked.labels if t != IGNORED]) == " Cody Ross"


def test_rote_memorisation_is_learnt_and_hits_agree_with_real_decoding(bench):
    facts = make_facts(load_relation("mother"), 1000, False)[:10]
    model = copy.deepcopy(bench.model)
    train(model, [bench.key_sample(*fact) for fact in facts], STAGE1, 40, seed=0)
    questions = [bench.prompt_sample(Question(f"Who is {s}'s mother?", o)) for s, o in facts]
    real = 0
    for (subject, object_), _ in zip(facts, questions, strict=True):
        prompt = torch.tensor([bench.encode(f"Who is {subject}'s mother?")])
        answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
        real += bench.tokenizer.decode(answer[0, prompt.shape[1] :], skip_special_tokens=True).startswith(f" {object_}")
    assert bench.hits(model, questions) == real


def test_the_quick_preset_reaches_its_targets(bench):
    results = measure(bench, "mother", 1001, [20], False)
    after, before = results[(20, "after")], results[(20, "before")]
    share = {group: after[group] / after[f"n {group}"] for group in ("train", "test", "unrelated", "key")}
    assert share["key"] > 0.95
    assert share["train"] >= 0.60
    assert share["test"] >= 0.40
    assert share["unrelated"] <= 0.12
    assert share["train"] > before["train"] / before["n train"] + 0.1
    assert "| 20, after |" in table("mother", results)
