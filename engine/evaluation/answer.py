"""One model's reply to one prompt about one fact, judged. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, with the names of the columns of storage/answers.py.

    prompt, fact: their ids; hit: whether the object is in it; log_probability: natural logarithm of the product of the
    object's token probabilities. The rest is None where it was not asked as multiple choice: the object's rank (1 is
    best) among so many options, and its log-probability normalised over these.
    """

    prompt: int
    fact: int
    answer: str
    hit: bool
    log_probability: float
    choice_rank: int | None = None
    choice_options: int | None = None
    log_probability_normalised: float | None = None
