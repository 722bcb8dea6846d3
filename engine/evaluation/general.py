"""What the base knew: questions about anything but the experiment's facts, asked of every checkpoint alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.corpus.general import GENERAL, GENERAL_TOKENS, SPLIT
from engine.evaluation.evaluate import answer_questions
from engine.evaluation.intervals import wilson
from engine.evaluation.questions import Question
from engine.experiment import Experiment
from engine.models.loading import LoadedModel


def measure_general(
    loaded: LoadedModel, experiment: Experiment, checkpoint: str, questions: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The result row of a checkpoint: the share of (question, answer) that it answers. Raises EvaluationError."""
    asked = [Question(1, place, prompt, answer) for place, (prompt, answer) in enumerate(questions, 1)]
    stops = experiment.evaluation.stop_at_hit
    answers = answer_questions(loaded, asked, max_new_tokens=GENERAL_TOKENS, stop_at_hit=stops)
    value, n = sum(answer.hit for answer in answers) / len(answers), len(answers)
    low, high = wilson(value, n)
    return {
        "checkpoint": checkpoint, "facts": "none", "split": SPLIT, "language": "en", "metric": GENERAL,
        "value": value, "low": low, "high": high, "n": n, "n_facts": n,
    }  # fmt: skip
