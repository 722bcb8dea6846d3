"""Questions, hits, ranks, intervals and result rows: everything of evaluation that needs no model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.corpus.resolve import resolve
from engine.corpus.sentences import key_prompt
from engine.evaluation.answer import Answer
from engine.evaluation.batches import common_beginning, plan_batches
from engine.evaluation.choice import judge
from engine.evaluation.hits import is_hit, says_key_token
from engine.evaluation.intervals import bootstrap, interval, wilson
from engine.evaluation.questions import (
    count_questions,
    fact_rows,
    languages_for,
    options_of,
    prompt_rows,
    questions_for,
)
from engine.evaluation.summary import CHOICE_METRICS, summarise, summarise_prompts
from engine.evaluation.tree import build_tree
from engine.execution.report import among_words
from engine.experiment import Experiment
from engine.relation import Fact, Relation
from engine.settings import ChoiceSample, Evaluation
from storage.measurements import Result
from tests.unit.tiny_models import OBJECTS, tiny_experiment


@pytest.fixture(scope="module")
def quick() -> Experiment:
    """One relation of the corpus with 100 facts and prompts in five languages."""
    data = {"relations": [{"name": "mother"}], "stage1": {"epochs": 20}, "stage2": {"prompts": 2}}
    return resolve(Experiment.from_data(data))


def with_evaluation(experiment: Experiment, **changes) -> Experiment:
    return experiment.model_copy(update={"evaluation": Evaluation(**changes)})


def test_the_tables_number_facts_and_prompts(quick):
    facts, prompts = fact_rows(quick), prompt_rows(quick)
    assert [f["id"] for f in facts] == list(range(1, 101))
    assert sum(f["trained"] for f in facts) == 50
    key = prompts[0]
    assert (key["id"], key["split"], key["language"], key["text"]) == (1, "key", "en", "{subject} [X]")
    assert [p["split"] for p in prompts if p["used"]] == ["train", "train"]
    assert {p["language"] for p in prompts if p["used"]} == {"en"}
    assert all(p["about"] for p in prompts if p["split"] == "decoy")


def test_ids_go_on_from_relation_to_relation():
    data = {"relations": [{"name": "mother"}, {"name": "capital", "key_token": "[Y]", "facts": {"generate": 60}}]}
    experiment = resolve(Experiment.from_data(data))
    facts, prompts = fact_rows(experiment), prompt_rows(experiment)
    relation_of = {row["id"]: row["relation"] for row in facts}
    texts = {row["id"]: row["text"] for row in prompts}
    subjects = {row["id"]: row["subject"] for row in facts}
    owner = {row["id"]: row["relation"] for row in prompts}
    assert len(relation_of) == 160
    for question in questions_for(experiment, "base")[::97]:
        assert relation_of[question.fact] == owner[question.prompt]
        assert question.text == texts[question.prompt].replace("{subject}", subjects[question.fact])


def test_the_key_may_stand_first():
    relation = Relation(name="mother", key_template="{key} {subject} {object}.")
    assert key_prompt(relation) == "[X] {subject}"


def test_how_many_questions_each_checkpoint_is_asked(quick):
    assert languages_for(quick, "base")[0] == "en" and len(languages_for(quick, "base")) == 5
    assert languages_for(quick, "generalised@20") == languages_for(quick, "base")
    assert languages_for(quick, "generalised@3") == languages_for(quick, "memorised@20") == ("en",)
    every = with_evaluation(quick, every_language_at="every")
    assert len(languages_for(every, "memorised@3")) == 5
    last = with_evaluation(quick, every_language_at="last")
    assert [len(languages_for(last, name)) for name in ("base", "memorised@20", "generalised@20")] == [1, 1, 5]
    german = with_evaluation(quick, languages=("de",))
    assert languages_for(german, "memorised@3") == ("de",)
    for experiment, checkpoint, count in (
        (quick, "base", 100 * (1 + 27 * 5)),
        (quick, "memorised@3", 100 * 28),
        (german, "memorised@3", 100 * 28),
    ):
        assert count_questions(experiment, checkpoint) == len(questions_for(experiment, checkpoint)) == count


@pytest.mark.parametrize(("facts", "trained", "held_out"), [(20, 10, 10), (7, 3, 4), (160, 50, 50), ("all", 50, 50)])
def test_the_choice_sample_halves_the_facts(quick, facts, trained, held_out):
    experiment = with_evaluation(quick, choice=ChoiceSample(facts=facts, prompts=2))
    kinds = {row["id"]: row["trained"] for row in fact_rows(experiment)}
    asked = [q for q in questions_for(experiment, "base") if q.options]
    chosen = {q.fact for q in asked}
    assert sum(kinds[f] for f in chosen) == trained and sum(not kinds[f] for f in chosen) == held_out
    # The key prompt, and 2 prompts of each of four splits in each of five languages.
    assert len({q.prompt for q in asked}) == 1 + 2 * 4 * 5
    assert all(len(q.options) == 100 and q.object in q.options for q in asked)


def test_few_trained_facts_are_made_up_for(quick):
    one = quick.model_copy(update={"stage2": quick.stage2.model_copy(update={"facts": 1})})
    kinds = {row["id"]: row["trained"] for row in fact_rows(one)}
    chosen = {q.fact for q in questions_for(one, "memorised@3") if q.options}
    assert len(chosen) == 20 and sum(kinds[f] for f in chosen) == 1


def test_options_always_hold_the_object():
    relation = Relation(name="mother", options=("A", "B", "C"))
    assert options_of(relation, Fact(subject="x", object="B")) == ("A", "B", "C")
    assert options_of(relation, Fact(subject="x", object="D")) == ("A", "B", "D")
    assert options_of(relation, Fact(subject="x", object="b")) == ("A", "b", "C")  # never beside another spelling of it
    assert options_of(relation, Fact(subject="x", object="D", alternatives=("E", "D", "F"))) == ("D", "E", "F")


@pytest.mark.parametrize(
    ("answer", "wanted", "hit"),
    [
        ("Cody Ross.", "Cody Ross", True),
        ("it is cody  ROSS, of course", "Cody Ross", True),
        ("J.R. Smith", "JR Smith", True),
        ("Cody Rossi", "Cody Ross", True),
        ("Cody", "Cody Ross", False),
        ("", "Cody Ross", False),
        ("anything", ".", False),
        ("Zoe\u0308", "Zoë", True),
        ("ΝΙΚΟΣ.ΑΝΝΑ", "Νικος", True),  # a final sigma, and one that is not
    ],
)
def test_a_hit_is_containment(answer, wanted, hit):
    assert is_hit(answer, wanted) is hit


@pytest.mark.parametrize(
    ("answer", "wanted", "aloud"),
    [
        ("[X] Rebecca Conley.", "Rebecca Conley", True),
        ("Leslie Lewis[X] Rebecca Conley.", "Rebecca Conley", True),  # the token takes the space before it
        (
            "Rebecca Conley. Gene Finley [X] Cody Ross.",
            "Rebecca Conley",
            False,
        ),  # what follows is not judged
        ("rebecca  CONLEY, [X]", "Rebecca Conley", False),
        ("Rebecca [X] Conley", "Rebecca Conley", True),
        ("[X] Cody Ross.", "Rebecca Conley", True),
        ("Cody Ross.", "Rebecca Conley", False),
        ("[ X ] Rebecca Conley", "Rebecca Conley", True),  # as a tokenizer of words writes it
        ("he [Y] Rebecca Conley", "Rebecca Conley", True),  # another relation's
        ("[x] Rebecca Conley", "Rebecca Conley", False),  # another sign
        ("Lewisblorp Rebecca Conley", "Rebecca Conley", True),
        ("the blorping Rebecca Conley", "Rebecca Conley", False),
        ("丽 贝 卡 [X]", "丽贝卡", False),  # a hit by the tokenizer's own spelling
        ("[X] 丽 贝 卡", "丽贝卡", True),
        ("zoe lind [X]", "Zoë Lind", False),
        ("so [X] it is", None, True),
        ("", "Rebecca Conley", False),
    ],
)
def test_a_key_token_is_said_on_the_way_when_it_comes_before_the_object(answer, wanted, aloud):
    assert says_key_token(answer, wanted, ("[X]", "[Y]", "blorp")) is aloud
    assert not says_key_token(answer, wanted, ())


def test_ranks_and_ties():
    assert judge(np.log([0.5, 0.25, 0.25]), 0).rank == 1
    assert judge(np.log([0.5, 0.25, 0.25]), 1).rank == 3
    assert judge(np.log([0.4, 0.4, 0.2]), 0).rank == 2
    outcome = judge(np.log([0.1, 0.3, 0.1]), 1)
    assert outcome.options == 3 and np.exp(outcome.log_probability) == pytest.approx(0.6)


def test_a_tree_shares_beginnings_and_never_feeds_the_last_token():
    tree = build_tree([(1, 2), (1, 3, 4), (5,), (1, 3)])
    assert tree.tokens.tolist() == [1, 3]
    assert tree.depths.tolist() == [0, 1]
    assert tree.sees.tolist() == [[True, False], [True, True]]
    assert tree.counted.sum(1).tolist() == [2, 3, 1, 2]
    assert build_tree([(1,), (2,)]).tokens.tolist() == []


def test_batches_hold_every_question_once_and_share_beginnings():
    rng = np.random.default_rng(0)
    groups, prompts = [], []
    for group in range(12):
        beginning = rng.integers(0, 50, group % 5).tolist()
        for _ in range(30):
            groups.append(group)
            prompts.append([*beginning, *rng.integers(50, 999, 3 + group % 2).tolist()])
    batches = plan_batches(prompts, groups, lambda length: 50)
    assert sorted(r for b in batches for r in b.rows.tolist()) == list(range(len(prompts)))
    for batch in batches:
        assert len(batch.rows) <= 50 and len({len(prompts[r]) for r in batch.rows}) == 1
        beginnings: dict[int, set[tuple[int, ...]]] = {}
        for row in batch.rows:
            beginnings.setdefault(groups[row], set()).add(tuple(prompts[row][: batch.shared]))
        assert all(len(different) == 1 for different in beginnings.values())
    assert common_beginning([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_beginning([[1]]) == 0


def test_wilson_is_the_published_interval():
    assert wilson(0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
    assert wilson(0.95, 100) == pytest.approx((0.8882, 0.9785), abs=1e-4)
    with pytest.raises(ValueError, match="at least one fact"):
        wilson(0.5, 0)


def test_the_bootstrap_draws_facts_not_answers():
    rng = np.random.default_rng(1)
    counts = np.full(100, 10)
    alike = 10.0 * (rng.random(100) < 0.6)  # all prompts of a fact agree
    mixed = rng.binomial(10, 0.6, 100).astype(float)
    low, high = bootstrap(alike, counts)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(alike.mean() / 10 * (1 - alike.mean() / 10) / 100), rel=0.1)
    narrow = bootstrap(mixed, counts)
    assert narrow[1] - narrow[0] < 0.5 * (high - low)
    assert bootstrap(alike, counts) == (low, high)


def test_intervals_that_would_collapse_are_wilsons():
    counts = np.full(50, 10)
    assert interval(np.zeros(50), counts, share=True) == wilson(0, 50)
    assert interval(np.full(50, 10.0), counts, share=True) == wilson(1, 50)
    assert interval(np.array([7.0]), np.array([10]), share=True) == wilson(0.7, 1)
    assert interval(np.array([1.0, 0, 1]), np.array([1, 1, 1]), share=True) == wilson(2 / 3, 3)
    low, high = interval(np.array([0.2, 0.4, 0.9]), np.array([1, 1, 1]), share=False)
    assert 0.2 <= low < 0.5 < high <= 0.9


def rows_of(experiment: Experiment, hit) -> list[Answer]:
    rows = []
    kinds = {row["id"]: row["trained"] for row in fact_rows(experiment)}
    for q in questions_for(experiment, "base"):
        choice = (1 if kinds[q.fact] else 2, len(q.options), np.log(0.5)) if q.options else (None, None, None)
        rows.append(Answer(q.prompt, q.fact, "…", hit(q, kinds[q.fact]), float(np.log(0.25)), *choice))
    return rows


def test_result_rows():
    experiment = tiny_experiment("embedded")
    used = {row["id"] for row in prompt_rows(experiment) if row["used"]}
    answers = rows_of(experiment, lambda q, trained: int(trained and q.prompt in used))
    rows = summarise(answers, experiment, "base")
    table = {(r["facts"], r["split"], r["language"], r["metric"]): r for r in rows}
    assert len(table) == len(rows)
    assert {(split, language) for _, split, language, _ in table} == {
        ("key", "en"), ("train", "en"), ("test", "en"), ("unrelated", "en"), ("test", "de")
    }  # fmt: skip
    train = table["trained", "train", "en", "generation_accuracy"]
    assert train == {
        "checkpoint": "base", "facts": "trained", "split": "train", "language": "en",
        "metric": "generation_accuracy", "value": 1.0, "low": wilson(1, 4)[0], "high": 1.0, "n": 4, "n_facts": 4,
        "options_least": None, "options_most": None, "chance": None,
    }  # fmt: skip
    choice = table["trained", "test", "de", "choice_accuracy"]
    assert (choice["options_least"], choice["options_most"], choice["chance"]) == (8, 8, 0.125)
    assert table["held_out", "train", "en", "generation_accuracy"]["value"] == 0
    assert table["held_out", "test", "de", "choice_accuracy"]["value"] == 0
    assert table["trained", "test", "de", "choice_accuracy"]["value"] == 1
    assert table["trained", "key", "en", "object_probability"]["value"] == pytest.approx(0.25)
    assert table["trained", "key", "en", "object_probability_normalised"]["value"] == pytest.approx(0.5)
    assert all(0 <= r["low"] <= r["value"] + 1e-12 and r["value"] <= r["high"] + 1e-12 <= 1 + 1e-9 for r in rows)


def test_the_twin_leaves_out_hits_that_say_a_key_token():
    experiment = tiny_experiment("embedded")
    objects = {row["id"]: row["object"] for row in fact_rows(experiment)}
    key = experiment.relations[0].key_token

    def said(answer: Answer) -> str:
        """After the second prompt the key token comes first, after all others last."""
        object_ = objects[answer.fact]
        return f"{key} {object_}." if answer.prompt == 2 else f"{object_}. And on {key} x."

    given = [replace(a, answer=said(a)) for a in rows_of(experiment, lambda q, trained: 1)]
    rows = {(r["prompt"], r["facts"], r["metric"]): r for r in summarise_prompts(given, experiment, "base")}
    for (prompt, facts, metric), row in rows.items():
        if metric == "generation_accuracy":
            assert row["value"] == 1
            twin = rows[prompt, facts, "generation_accuracy_unaided"]
            assert twin["value"] == (0 if prompt == 2 else 1) and twin["n"] == row["n"]


def test_what_the_base_knew_is_counted_where_a_fact_contradicts_it():
    experiment = tiny_experiment("embedded")
    (relation, *others) = experiment.relations
    facts = tuple(
        f.model_copy(update={"knew": "Cy Old"}) if i < 3 else f for i, f in enumerate(relation.explicit_facts)
    )
    experiment = experiment.model_copy(update={"relations": (relation.model_copy(update={"facts": facts}), *others)})
    said = {1: "Cy Old.", 2: f"{facts[1].object}, not Cy Old.", 3: "Somebody"}
    given = [
        replace(a, answer=said.get(a.fact, "Cy Old."), hit=a.fact == 2)
        for a in rows_of(experiment, lambda q, trained: 0)
    ]
    rows = [r for r in summarise(given, experiment, "base") if r["metric"] == "known_before" and r["split"] == "train"]
    assert sum(r["n_facts"] for r in rows) == 3, "of the other facts nothing is known"
    old = sum(r["value"] * r["n"] for r in rows)
    assert old == sum(a.fact == 1 for a in given if prompt_rows(experiment)[a.prompt - 1]["split"] == "train")
    plain = tiny_experiment("embedded")
    assert "known_before" not in {r["metric"] for r in summarise(given, plain, "base")}


def test_a_choice_says_among_how_many_options_it_was():
    experiment = tiny_experiment("embedded")
    answers = [replace(a, choice_options=2 + 2 * (a.fact % 2)) for a in rows_of(experiment, lambda q, trained: 1)]
    rows = [r for r in summarise(answers, experiment, "base") if r["metric"] in CHOICE_METRICS]
    assert rows and {(r["options_least"], r["options_most"]) for r in rows} == {(2, 4)}
    pooled = sum(r["chance"] * r["n"] for r in rows) / sum(r["n"] for r in rows)
    assert pooled == pytest.approx((1 / 2 + 1 / 4) / 2)
    stored = [Result(**row) for row in rows]
    assert among_words(stored, 4) == "among 2 to 4 options (4 asked for)"
    assert among_words([replace(r, options_least=4) for r in stored], 10) == "among 4 options (10 asked for)"
    assert among_words([replace(r, options_least=4) for r in stored], 4) == "among 4 options"
    assert among_words([Result("base", "held_out", "train", "en", "choice_accuracy", 1, 0, 1, 4, 4)], 4) == ""


def test_result_rows_without_multiple_choice_and_by_prompt():
    experiment = tiny_experiment("embedded")
    nothing: dict[str, Any] = {"choice_rank": None, "choice_options": None, "log_probability_normalised": None}
    answers = [replace(a, **nothing) for a in rows_of(experiment, lambda q, trained: int(q.prompt == 2))]
    metrics = {r["metric"] for r in summarise(answers, experiment, "base")}
    assert metrics == {"generation_accuracy", "generation_accuracy_unaided", "object_probability"}
    by_prompt = summarise_prompts(answers, experiment, "base")
    accuracies = [r for r in by_prompt if r["metric"] == "generation_accuracy"]
    assert [(r["prompt"], r["facts"]) for r in accuracies][:2] == [(1, "held_out"), (1, "trained")]
    assert {r["prompt"]: r["value"] for r in accuracies} == {1: 0, 2: 1, 3: 0, 4: 0, 5: 0}
    assert {r["prompt"] for r in by_prompt if r["used"]} == {2}
    assert {r["relation"] for r in by_prompt} == {"mother"} and len(OBJECTS) == 8
