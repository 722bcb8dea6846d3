"""Put questions to served models: what is asked of one fact, and what the answer is worth.

    queries = fact_queries(experiment, fact=1)
    for answers in ask_in_steps(client, served, queries): ...   # answers first, then with their ranks
    answers = ask(client, served, queries)

Knows no torch: tokens are made with the run's own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.experiment import Experiment
from engine.serving.client import ServerClient
from engine.serving.served import ServedModel


@dataclass(frozen=True, slots=True)
class Query:
    """One text that models continue.

    object: what a right answer contains, empty where nothing is known to be right. options: the answers that the
    object is ranked among, with the object; empty for no ranking. prompt, fact: ids as in the tables of
    `storage.answers`, None for free text and for a subject that is no fact of the run. split: `key`, `train`, `test`,
    `unrelated`, `decoy`, or `free`. template: the prompt with `{subject}`.
    """

    text: str
    object: str = ""
    options: tuple[str, ...] = ()
    relation: str = ""
    split: str = "free"
    language: str = ""
    template: str = ""
    subject: str = ""
    prompt: int | None = None
    fact: int | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is chosen. temperature 0 is greedy, and then top_p and seed mean nothing."""

    max_tokens: int = 50
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer, or one that could have stood there; log_probability: natural logarithm."""

    id: int
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one query.

    hit: whether the answer contains the object (None without an object). log_probability: ln P(object | text), None
    without an object. rank of the object among `options` answers: 1 is best, a tie goes against it; None until it is
    known, and where there is nothing to rank. finish_reason: `stop` or `length`.
    """

    query: Query
    model: str
    text: str
    tokens: tuple[Token, ...]
    finish_reason: str
    hit: bool | None = None
    log_probability: float | None = None
    rank: int | None = None
    options: int | None = None

    def to_row(self) -> dict[str, Any]:
        """Plain data for JSON and CSV: the query's fields and `model, answer, hit, probability, rank, options …`."""
        raise NotImplementedError


def find_fact(experiment: Experiment, subject: str, relation: str | None = None) -> int:
    """The id of the fact about this subject (case, spaces and `:,.` aside). Raises ValueError with near ones named."""
    raise NotImplementedError


def fact_queries(experiment: Experiment, fact: int, languages: Sequence[str] | None = None) -> list[Query]:
    """Every prompt of the fact's relation about it: key prompt, then as in the experiment. Raises KeyError."""
    raise NotImplementedError


def subject_queries(
    experiment: Experiment,
    relation: str,
    subject: str,
    object_: str = "",
    languages: Sequence[str] | None = None,
) -> list[Query]:
    """Every prompt of the relation about a subject that was typed in. Raises ValueError with one sentence."""
    raise NotImplementedError


def prompt_queries(experiment: Experiment, prompt: int) -> list[Query]:
    """One prompt (by id) about every fact of its relation. Raises KeyError."""
    raise NotImplementedError


def free_query(experiment: Experiment, text: str, object_: str = "") -> Query:
    """A text as it was typed; `{key}` stands for the (first) key token. Raises ValueError with one sentence."""
    raise NotImplementedError


def ask_in_steps(
    client: ServerClient, served: ServedModel, queries: Sequence[Query], sampling: Sampling = Sampling()
) -> Iterator[list[Answer]]:
    """All answers of one model, twice: as soon as they are there, with hit and probability of the object, and again
    with the ranks. Raises ServingError; ValueError for what cannot be asked (too long, empty)."""
    raise NotImplementedError


def ask(
    client: ServerClient, served: ServedModel, queries: Sequence[Query], sampling: Sampling = Sampling()
) -> list[Answer]:
    """All answers of one model, with ranks; the last step of `ask_in_steps`."""
    raise NotImplementedError


def alternatives(client: ServerClient, served: ServedModel, answer: Answer, place: int, count: int = 20) -> list[Token]:
    """The `count` most likely tokens at `place` of the answer (0 is its first token; its length, what would follow)."""
    raise NotImplementedError
