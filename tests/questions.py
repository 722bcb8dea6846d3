"""What tests ask served models."""

from __future__ import annotations

from engine.evaluation.questions import fact_rows
from engine.experiment import Experiment
from engine.serving.asking.questions import fact_questions
from storage.askings import Question


def object_of(question: Question) -> str:
    """What a right answer contains, of a question for which something is known to be right."""
    assert question.object is not None
    return question.object


def about_fact(experiment: Experiment, number: int) -> list[Question]:
    """Every prompt about a fact by its id, as the tables of storage/answers.py count."""
    fact = fact_rows(experiment)[number - 1]
    return fact_questions(experiment, fact["subject"], fact["relation"])
