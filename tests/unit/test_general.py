"""What the base knew: the questions, and that a model that forgot is told from one that did not."""

from __future__ import annotations

import torch

from engine.base.known import known_questions
from engine.corpus.beginning_data import BEGINNINGS_FILE
from engine.corpus.general import GENERAL, general_questions
from engine.corpus.relations import load_relations
from engine.evaluation.general import measure_general
from engine.evaluation.hits import is_hit
from engine.models.loading import load_base
from tests.unit.tiny_models import tiny_experiment


def test_no_question_answers_itself_or_is_asked_elsewhere() -> None:
    questions = general_questions()
    prompts = [prompt for prompt, _ in questions]
    assert len(set(prompts)) == len(questions) >= 77
    assert not [prompt for prompt, answer in questions if is_hit(prompt, answer)]
    asked = {prompt.text.partition("{subject}")[0] for r in load_relations().values() for prompt in r.iter_prompts()}
    replayed = BEGINNINGS_FILE.read_text(encoding="utf-8")
    assert not [p for p in prompts if p in replayed or any(begin and p.startswith(begin) for begin in asked)]


def test_a_base_of_the_labs_own_is_asked_about_its_world() -> None:
    assert known_questions("someone/anything") == general_questions() != known_questions("embedded")


def test_what_was_forgotten_shows() -> None:
    experiment = tiny_experiment("embedded")
    loaded, questions = load_base(experiment), known_questions("embedded")[:20]
    before = measure_general(loaded, experiment, "base", questions)
    assert (before["metric"], before["n"], before["facts"]) == (GENERAL, 20, "none") and before["value"] >= 0.5
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.add_(torch.randn_like(weight))
    assert measure_general(loaded, experiment, "memorised@1", questions)["value"] < before["value"]
