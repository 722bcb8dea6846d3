"""From a cell's answers, or what an audit computed, to result rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.attack.questions import Questionnaire
from engine.evaluation.answer import Answer
from engine.evaluation.hits import key_token_judge
from engine.evaluation.intervals import interval
from engine.evaluation.summary import UNAIDED

# As in a run's figures. Probabilities are of the object right after the prompt, where no key token stands in between.
METRICS = (("generation_accuracy", True), (UNAIDED, True), ("object_probability", False))


def result_rows(form: Questionnaire, answers: Iterable[Answer], checkpoint: str) -> list[dict[str, Any]]:
    """One row for each reading, kind of fact, split, language and metric: the fields of storage/attacks.py.

    The unit of intervals is the fact.
    """
    facts_by_id = {fact["id"]: fact for fact in form.facts}
    aloud = key_token_judge(form.base.key_tokens)
    groups: dict[tuple[str, str, str, str, str], dict[int, list[tuple[float, ...]]]] = {}
    for answer in answers:
        asked = form.asked[answer.prompt - 1]
        fact = facts_by_id[answer.fact]
        group = (asked.reading, asked.role, fact["kind"], asked.split, asked.language)
        unaided = answer.hit and not aloud(answer.answer, fact["object"])
        values = (float(answer.hit), float(unaided), float(np.exp(answer.log_probability)))
        groups.setdefault(group, {}).setdefault(answer.fact, []).append(values)
    rows = []
    for (reading, role, facts, split, language), by_fact in groups.items():
        for column, (metric, share) in enumerate(METRICS):
            pairs = [(sum(v[column] for v in of_fact), len(of_fact)) for of_fact in by_fact.values()]
            rows.append(
                {"reading": reading, "role": role, "checkpoint": checkpoint, "facts": facts, "split": split,
                 "language": language, "metric": metric, **figures(pairs, share, form.cell.seed),
                 "by_fact": [[round(total, 5), count] for total, count in pairs]}
            )  # fmt: skip
    return rows


def figures(pairs: Sequence[Sequence[float]], share: bool, seed: int = 0) -> dict[str, Any]:
    """`value, low, high, n, n_facts` from (sum, answers) of each fact."""
    sums, counts = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    low, high = interval(sums, counts, share=share, seed=seed)
    value = float(sums.sum() / counts.sum())
    return {"value": value, "low": low, "high": high, "n": int(counts.sum()), "n_facts": len(pairs)}


def audit_row(metric: str, checkpoint: str, value: float, low: float, high: float, n: int) -> dict[str, Any]:
    """The result row of one figure of an audit."""
    return {
        "reading": "", "role": "", "checkpoint": checkpoint, "facts": "all", "split": "audit", "language": "",
        "metric": metric, "value": value, "low": low, "high": high, "n": n, "n_facts": n, "by_fact": [],
    }  # fmt: skip
