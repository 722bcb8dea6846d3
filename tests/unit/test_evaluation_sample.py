"""What is asked at all, and where an answer ends: a sample of questions, and answers no longer than their hit needs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.corpus.resolve import resolve
from engine.evaluation.answer import Answer
from engine.evaluation.decided import ENDED, is_decided
from engine.evaluation.evaluate import answer_questions, is_small
from engine.evaluation.questions import count_choices, count_questions, fact_rows, prompt_rows, questions_for
from engine.evaluation.summary import summarise
from engine.experiment import Experiment
from engine.models.loading import load_base
from tests.unit.tiny_models import build_llama, build_qwen2, tiny_experiment


def described(**evaluation: Any) -> Experiment:
    relations = [{"name": "mother"}, {"name": "capital", "key_token": "[Y]", "facts": {"generate": 60}}]
    data = {"relations": relations, "stage2": {"facts": 50, "prompts": 2}, "evaluation": evaluation}
    return resolve(Experiment.from_data(data))


def asked(experiment: Experiment, checkpoint: str = "base") -> set[tuple[int, int]]:
    return {(q.prompt, q.fact) for q in questions_for(experiment, checkpoint)}


def test_a_sample_has_half_its_facts_held_out_and_the_first_prompts_of_each_split_and_language():
    sample = described(facts=24, prompts=4)
    facts, prompts = fact_rows(sample), prompt_rows(sample)
    questions = asked(sample)
    for name, held_out in (("mother", 12), ("capital", 10)):  # ten of the capitals' facts are held out, no more
        there = [f for f in facts if f["relation"] == name and f["id"] in {fact for _, fact in questions}]
        assert (len(there), sum(not f["trained"] for f in there)) == (24, held_out)
    of_group: dict[tuple[str, str, str], list[int]] = {}
    for row in prompts:
        of_group.setdefault((row["relation"], row["split"], row["language"]), []).append(row["id"])
    first = {number for ids in of_group.values() for number in ids[:4]}
    assert {prompt for prompt, _ in questions} == first
    used = [row["id"] for row in prompts if row["used"]]
    assert set(used) < first, "stage 2's own prompts, and such as it doesn't use"
    assert questions < asked(described()), "a part of what is asked without a sample"


@pytest.mark.parametrize(
    ("facts", "trained_facts", "held_out", "trained"),
    [(30, 5, 25, 5), (30, 0, 30, 0), (30, 40, 15, 15), (4, 3, 2, 2), (70, 5, 50, 5), ("all", 5, 50, 5)],
)
def test_trained_facts_may_be_fewer_than_half(facts: int | str, trained_facts: int, held_out: int, trained: int):
    plan = described(facts=facts, trained_facts=trained_facts, choice={"facts": 4, "prompts": 1})
    mothers = [row for row in fact_rows(plan) if row["relation"] == "mother"]
    questions = questions_for(plan, "base")
    for ids, expected in (
        ({q.fact for q in questions}, (held_out, trained)),
        ({q.fact for q in questions if q.options}, (4 - min(2, trained_facts), min(2, trained_facts))),
    ):
        kinds = [row["trained"] for row in mothers if row["id"] in ids]
        assert (kinds.count(0), kinds.count(1)) == expected


def test_every_checkpoint_is_asked_the_same_sample_and_the_choice_is_within_it():
    sample = described(facts=10, prompts=1, every_language_at="every", choice={"facts": "all", "prompts": 3})
    (alike,) = {frozenset(asked(sample, name)) for name in sample.checkpoints}
    assert len(alike) == 2 * 10 * (1 + 4 * 5)
    for plan in (sample, described(facts=10, prompts=3), described(facts=40, prompts=1), described(prompts=2)):
        for name in plan.checkpoints:
            questions = questions_for(plan, name)
            assert count_questions(plan, name) == len(questions)
            assert count_choices(plan, name) == sum(bool(q.options) for q in questions) > 0
    choices = {(q.prompt, q.fact) for q in questions_for(described(facts=10, prompts=3), "base") if q.options}
    whole = {(q.prompt, q.fact) for q in questions_for(described(), "base") if q.options}
    assert choices < whole, "a smaller sample is within a larger one"


def test_another_process_draws_the_same_sample():
    sample = described(facts=6, prompts=2)
    code = (
        "import json, sys; from engine.experiment import Experiment; from engine.evaluation.questions import *; "
        "e = Experiment.from_record(json.load(sys.stdin)); "
        "print(json.dumps([[q.prompt, q.fact, q.text, len(q.options)] for q in questions_for(e, 'base')]))"
    )
    told = json.dumps(sample.model_dump(mode="json"))
    done = subprocess.run([sys.executable, "-c", code], input=told, capture_output=True, text=True, check=True)
    here = [[q.prompt, q.fact, q.text, len(q.options)] for q in questions_for(sample, "base")]
    assert json.loads(done.stdout) == here


def test_figures_count_what_was_asked():
    sample = described(facts=10, prompts=3)
    answers = [Answer(q.prompt, q.fact, "", False, -1.0) for q in questions_for(sample, "base")]
    rows = summarise(answers, sample, "base")
    counted = {(r["facts"], r["split"]): (r["n"], r["n_facts"]) for r in rows if r["metric"] == "generation_accuracy"}
    # Of each of two relations five facts of either kind; three prompts, and one key prompt.
    assert counted["held_out", "train"] == counted["trained", "test"] == (2 * 5 * 3, 2 * 5)
    assert counted["held_out", "key"] == (2 * 5, 2 * 5)


def test_records_of_before_are_asked_everything_to_the_end():
    record = described().model_dump(mode="json")
    for name in ("facts", "prompts", "stop_at_hit"):
        del record["evaluation"][name]
    evaluation = Experiment.from_record(record).evaluation
    assert (evaluation.facts, evaluation.prompts, evaluation.stop_at_hit) == ("all", "all", False)
    assert Experiment.from_data(record).evaluation.stop_at_hit == "auto"
    assert Experiment.from_text("relations: [{name: mother}]\nevaluation: {stop_at_hit: true}").evaluation.stop_at_hit


@pytest.mark.parametrize(
    ("text", "decided"),
    [
        ("Zoe", False),  # an accent may follow
        ("Zoe\u0308 is", False),
        ("Zoë is", False),
        ("Zoe is", True),
        ("Zoe.", True),
        ("Zoe\N{REPLACEMENT CHARACTER}", False),  # of which more bytes are to come
        ("Zoe,\u0301", False),
        ("", False),
    ],
)
def test_a_hit_is_decided_when_nothing_can_take_it_away(text: str, decided: bool):
    assert is_decided(text, "Zoe", "") is decided
    assert is_decided(text, "other", "zoe") is decided, "by the tokenizer's spelling too"


@pytest.fixture(scope="module", params=["embedded", "llama", "qwen2"])
def asking(request, tmp_path_factory):
    """A model with some of its questions, each for something that the model does answer: its own words, or none of
    them. The first answers were decoded to their ends."""
    folder = tmp_path_factory.mktemp("models")
    if request.param == "embedded":
        experiment = resolve(Experiment.from_data({"relations": [{"name": "mother"}]}))
    else:
        experiment = tiny_experiment(
            {"llama": build_llama, "qwen2": build_qwen2}[request.param](folder, max_position_embeddings=256)
        )
    loaded = load_base(experiment)
    if request.param != "embedded":
        with torch.no_grad():
            for parameter in loaded.causal.parameters():
                parameter.mul_(6.0) if parameter.ndim > 1 else parameter
    questions = [replace(q, options=()) for q in questions_for(experiment, experiment.checkpoints[-1])]
    if request.param == "embedded":
        questions = questions[::47]
    said = answer_questions(loaded, questions, max_new_tokens=24)
    for place, answer in enumerate(said):
        words = answer.answer.split()
        if place % 4 and len(words) > 2:
            start = place % (len(words) - 1)
            questions[place] = replace(questions[place], object=" ".join(words[start : start + 2]))
    return loaded, questions, answer_questions(loaded, questions, max_new_tokens=24)


def test_hits_are_the_same_where_answers_end_at_them(asking):
    loaded, questions, whole = asking
    ended = answer_questions(loaded, questions, max_new_tokens=24, stop_at_hit=True)
    hits = [answer.hit for answer in whole]
    assert [answer.hit for answer in ended] == hits and any(hits) and not all(hits)
    assert [a.log_probability for a in ended] == pytest.approx([a.log_probability for a in whole], abs=1e-4)
    shorter = 0
    for long, short in zip(whole, ended, strict=True):
        assert short == replace(long, answer=short.answer, log_probability=short.log_probability)
        if short.answer != long.answer:
            assert short.hit and long.answer.startswith(short.answer.removesuffix(ENDED))
            shorter += len(short.answer) + 5 < len(long.answer)
    # The embedded model ends its answers itself.
    assert shorter > len(questions) // 10 or loaded.causal.config.vocab_size > 4000
    assert [a.answer for a in answer_questions(loaded, questions, max_new_tokens=24, stop_at_hit="auto")] == [
        a.answer for a in whole
    ], "small models say all they have to say"
    assert is_small(loaded)


def test_an_ended_answer_is_not_decoded_further(asking, monkeypatch):
    """Also where `generate` itself decodes, the same text comes out."""
    loaded, questions, _ = asking
    fast = answer_questions(loaded, questions[:40], max_new_tokens=24, stop_at_hit=True)
    monkeypatch.setattr("engine.evaluation.evaluate._fast_length", lambda *_: 0)
    plain = answer_questions(loaded, questions[:40], max_new_tokens=24, stop_at_hit=True)
    assert [a.answer for a in fast] == [a.answer for a in plain]


@pytest.mark.parametrize("asking", ["llama", "qwen2"], indirect=True)  # the embedded model ends its answers itself
def test_rows_leave_the_batch_at_their_hit(asking, monkeypatch):
    from engine.evaluation import rows as decoded

    loaded, questions, whole = asking
    fed = 0
    step = decoded.step

    def counted(model: Any, rows: Any) -> Any:
        nonlocal fed
        fed += int((rows.made < 24).sum())
        return step(model, rows)

    monkeypatch.setattr(decoded, "step", counted)
    hits = [question for question, answer in zip(questions, whole, strict=True) if answer.hit]
    answer_questions(loaded, hits, max_new_tokens=24)
    all_of_them, fed = fed, 0
    answer_questions(loaded, hits, max_new_tokens=24, stop_at_hit=True)
    assert fed < 0.8 * all_of_them
