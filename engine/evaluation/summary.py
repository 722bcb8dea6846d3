"""From single answers to result rows: means with intervals, for each kind of fact, split of prompts and language.

Values: `generation_accuracy` (share of answers with the object in them), its twin `generation_accuracy_unaided` (the
same, but an answer that says a key token before the object is no hit: engine/evaluation/hits.py), `choice_accuracy`
(share of multiple-choice questions whose truth ranks first), `known_before` (of facts with `knew`: share of answers
with that in them, and not the object), `object_probability` (mean product of the object's token
probabilities) and `object_probability_normalised` (mean of that product over the sum of the options' products).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from engine.evaluation.answer import Answer
from engine.evaluation.hits import is_hit, key_token_judge
from engine.evaluation.intervals import interval
from engine.evaluation.questions import fact_rows, prompt_rows, right_answers
from engine.experiment import Experiment
from engine.relation import REASONING

UNAIDED = "generation_accuracy_unaided"
KNOWN_BEFORE = "known_before"
# Metric, and whether its values are hits and misses.
METRICS = (
    ("generation_accuracy", True),
    (UNAIDED, True),
    (KNOWN_BEFORE, True),
    ("choice_accuracy", True),
    ("object_probability", False),
    ("object_probability_normalised", False),
)
CHOICE_METRICS = ("choice_accuracy", "object_probability_normalised")
FACTS = ("held_out", "trained")


def summarise(answers: Iterable[Answer], experiment: Experiment, checkpoint: str) -> list[dict[str, Any]]:
    """Result rows of one checkpoint, pooled over relations.

    Rows: `checkpoint, facts (held_out or trained), split, language,
    metric, value, low, high, n (answers), n_facts, options_least, options_most, chance`, splits and languages in the
    prompts' order. The last three are of a choice, else None: among how many options it was, and what guessing would
    reach. All prompts of a split count alike, whether stage 2 used them or not: that is in the rows of
    `summarise_prompts`.
    """
    table = _Table(answers, experiment)
    prompts = prompt_rows(experiment)
    groups: dict[tuple[str, str], list[int]] = {}
    for row in prompts:
        groups.setdefault((row["split"], row["language"]), []).append(row["id"])
    return [
        {"checkpoint": checkpoint, "facts": kind, "split": split, "language": language, **figures}
        for kind in FACTS
        for (split, language), ids in groups.items()
        for figures in table.figures(kind, ids)
    ]


def summarise_prompts(answers: Iterable[Answer], experiment: Experiment, checkpoint: str) -> list[dict[str, Any]]:
    """The rows of `summarise` for each prompt alone: with `prompt, relation, text, about` and `used` (by stage 2)."""
    table = _Table(answers, experiment)
    return [
        {
            "checkpoint": checkpoint,
            "facts": kind,
            "prompt": row["id"],
            **{k: row[k] for k in ("relation", "split", "language", "text", "about", "used")},
            **figures,
        }
        for row in prompt_rows(experiment)
        for kind in FACTS
        for figures in table.figures(kind, [row["id"]])
    ]


class _Table:
    """Answers as columns, sorted by prompt, so that a prompt's answers are one slice."""

    def __init__(self, answers: Iterable[Answer], experiment: Experiment) -> None:
        ordered = sorted(answers, key=lambda answer: (answer.prompt, answer.fact))
        facts, right = fact_rows(experiment), right_answers(experiment)
        aloud = key_token_judge(experiment.key_tokens)
        knew = ["", *(fact.knew for relation in experiment.relations for fact in relation.explicit_facts)]
        # The other way round, and over two relations, something else is asked for than what the base knew.
        otherwise = {row["id"] for row in prompt_rows(experiment) if row["split"] in REASONING}
        self.prompt = np.array([a.prompt for a in ordered], dtype=np.int64)
        self.fact = np.array([a.fact for a in ordered], dtype=np.int64)
        # None, where it was not asked as multiple choice, becomes nan.
        rank = np.array([a.choice_rank for a in ordered], dtype=np.float64)
        normalised = np.array([a.log_probability_normalised for a in ordered], dtype=np.float64)
        self.values = {
            "generation_accuracy": np.array([a.hit for a in ordered], dtype=np.float64),
            UNAIDED: np.array(
                [a.hit and not aloud(a.answer, right(a.prompt, a.fact)) for a in ordered], dtype=np.float64
            ),
            KNOWN_BEFORE: np.array(
                [
                    not a.hit and is_hit(a.answer, knew[a.fact])
                    if knew[a.fact] and a.prompt not in otherwise
                    else np.nan
                    for a in ordered
                ],
                dtype=np.float64,
            ),
            "choice_accuracy": np.where(np.isnan(rank), np.nan, rank == 1),
            "object_probability": np.exp(np.array([a.log_probability for a in ordered], dtype=np.float64)),
            "object_probability_normalised": np.exp(normalised),
        }
        self.options = np.array([a.choice_options for a in ordered], dtype=np.float64)
        trained = np.array([False, *(row["trained"] == 1 for row in facts)])
        self.of_kind = {"trained": trained[self.fact], "held_out": ~trained[self.fact]}
        self.seed = experiment.seed

    def figures(self, kind: str, prompts: Sequence[int]) -> Iterator[dict[str, Any]]:
        """`metric, value, low, high, n, n_facts` and the choice's options, of each metric that was asked for."""
        ranges = [np.arange(*np.searchsorted(self.prompt, [p, p + 1])) for p in prompts]
        places = np.concatenate(ranges)
        places = places[self.of_kind[kind][places]]
        for metric, share in METRICS:
            values = self.values[metric][places]
            asked = ~np.isnan(values)
            if not asked.any():
                continue
            values, facts, options = values[asked], self.fact[places][asked], self.options[places][asked]
            _, number = np.unique(facts, return_inverse=True)
            sums, counts = np.bincount(number, values), np.bincount(number)
            low, high = interval(sums, counts, share=share, seed=self.seed)
            yield {
                "metric": metric,
                "value": float(values.mean()),
                "low": low,
                "high": high,
                "n": len(values),
                "n_facts": len(counts),
                **_among(options if metric in CHOICE_METRICS else options[:0]),
            }


def _among(options: np.ndarray) -> dict[str, Any]:
    """How many options the questions had; None for what is no choice."""
    if not len(options):
        return dict.fromkeys(("options_least", "options_most", "chance"))
    least, most = int(options.min()), int(options.max())
    return {"options_least": least, "options_most": most, "chance": float((1 / options).mean())}
