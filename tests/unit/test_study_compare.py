"""Paired comparisons: the same facts of the same seeds, and as many of them as are made together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evaluation.answer import Answer
from engine.evaluation.intervals import interval, wilson
from engine.evaluation.questions import fact_rows, prompt_rows
from engine.execution.studies.queue import queue_study
from engine.execution.studies.report import study_figures
from engine.experiment import Experiment
from engine.studies.compare import compare
from engine.studies.study import Study
from storage.answers import open_answers, store_answers, store_questions
from storage.database import open_database
from storage.folders import run_folder
from storage.runs import State, get_run
from storage.studies import StudyFigure, list_study_runs

FACTS = 40


Asked = dict[tuple[int, int, str], tuple[float, int]]


def asked(hits: list[int], seed: int = 0, answers: int = 3, among: str = "") -> Asked:
    return {(seed, fact, among or f"of seed {seed}"): (float(n), answers) for fact, n in enumerate(hits)}


def test_what_makes_a_fact_hard_counts_in_both() -> None:
    # Facts differ much, and the second setting gains one answer with each: certain when they are paired.
    first = [fact % 3 for fact in range(FACTS)]
    (found,) = compare(asked(first), [asked([n + 1 for n in first])])
    assert found is not None and found.n_facts == FACTS
    assert found.value == pytest.approx(1 / 3) and found.low == pytest.approx(found.high) == pytest.approx(1 / 3)
    assert found.p == found.p_holm == 1 / 2000
    # By themselves they would hardly be told apart.
    shuffled = np.random.default_rng(0).permutation(first).tolist()
    (other,) = compare(asked(first), [asked(shuffled)])
    assert other is not None and other.value == pytest.approx(0) and other.low < 0 < other.high and other.p > 0.5


def test_only_facts_that_both_were_asked_about_are_compared() -> None:
    first = asked([1] * FACTS) | asked([1] * FACTS, seed=1)
    held_out = {key: value for key, value in asked([3] * FACTS, seed=1).items() if key[1] >= 30}
    (found, nothing) = compare(first, [held_out, asked([1], seed=7)])
    assert found is not None and found.n_facts == 10 and found.value == pytest.approx(2 / 3)
    assert nothing is None


def test_several_comparisons_are_judged_together() -> None:
    chance = np.random.default_rng(1)
    first = chance.integers(0, 4, FACTS).tolist()
    others = [[min(3, n + int(chance.random() < gain)) for n in first] for gain in (0.5, 0.1, 0.0)]
    alone = [compare(asked(first), [asked(other)])[0] for other in others]
    together = compare(asked(first), [asked(other) for other in others])
    assert all(one and other for one, other in zip(alone, together, strict=True))
    ps = [one.p for one in together if one]
    assert ps == [one.p for one in alone if one], "each by itself is what it is"
    holm = [one.p_holm for one in together if one]
    order = np.argsort(ps, kind="stable")
    assert holm[order[0]] == min(1.0, 3 * ps[order[0]])
    assert np.all(np.diff(np.array(holm)[order]) >= 0) and all(h >= p for h, p in zip(holm, ps, strict=True))


def test_a_few_facts_prove_nothing() -> None:
    (found,) = compare(asked([0, 0, 0]), [asked([3, 3, 3])])
    assert found is not None and found.value == 1 and found.p == 0.25


def test_a_fact_that_is_the_same_in_several_seeds_is_one_fact() -> None:
    hits = np.random.default_rng(2).integers(0, 3, FACTS).tolist()
    gained = [n + fact % 2 for fact, n in enumerate(hits)]

    def over_seeds(hits: list[int], among: str) -> Asked:
        return {key: value for seed in range(3) for key, value in asked(hits, seed, among=among).items()}

    (once,) = compare(asked(hits), [asked(gained)])
    (thrice,) = compare(over_seeds(hits, "mine"), [over_seeds(gained, "mine")])
    assert once is not None and thrice == once, "asked three times about it nothing more is known of other facts"
    (apart,) = compare(over_seeds(hits, ""), [over_seeds(gained, "")])
    assert apart is not None and apart.n_facts == 3 * FACTS and apart.high - apart.low < once.high - once.low
    (none,) = compare(asked(hits, among="these"), [asked(gained, among="those")])
    assert none is None, "facts of one number are not the same facts"


def test_facts_that_are_written_out_are_the_unit_of_all_seeds(tmp_path: Path) -> None:
    facts = [{"subject": f"Person{i} Alpha", "object": f"Thing{i}x Beta"} for i in range(10)]
    prompts = [{"text": "{subject} follows", "split": "train"}, {"text": "Who guides {subject}?", "split": "test"}]

    def figure(relation: dict[str, Any]) -> StudyFigure:
        base = {"relations": [relation | {"key_token": "[X]"}], "stage1": {"epochs": 1}, "stage2": {"facts": 4}}
        db = open_database(tmp_path)
        study = queue_study(db, Study.from_data({"name": "m", "experiment": base, "axes": {"seed": [0, 1, 2]}}))
        for run in list_study_runs(db, study):
            db.table("runs").update(run.run, {"state": State.DONE.value, "finished_at": "2026-03-01T10:00:00.000Z"})
            put_answers(run_folder(tmp_path, run.run), Experiment.from_record(get_run(db, run.run).experiment))
        (found,) = [f for f in study_figures(db, tmp_path, study) if f.facts == "all" and f.split == "key"]
        db.close()
        return found

    def put_answers(folder: Path, experiment: Experiment) -> None:
        folder.mkdir(parents=True)
        answers = open_answers(folder)
        store_questions(answers, fact_rows(experiment), prompt_rows(experiment))
        store_answers(answers, "memorised@1", [Answer(1, fact, "", fact < 8, -1.0) for fact in range(1, 11)])
        answers.close()

    mine = figure({"name": "guide", "facts": facts, "prompts": prompts})
    made = figure({"name": "mother", "facts": {"generate": 10}})
    assert mine.value == made.value == 0.7 and mine.n == made.n == 30
    assert (mine.n_facts, made.n_facts) == (10, 30)
    assert (mine.low, mine.high) == interval(np.repeat([3.0, 0.0], [7, 3]), np.full(10, 3.0), share=True)
    assert (made.low, made.high) == wilson(0.7, 30)
