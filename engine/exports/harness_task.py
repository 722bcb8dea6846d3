"""What the YAML files of this folder call: the questions, and how the lab judges what a model says to them.

Part of an exported task of Rote Lab: lm-evaluation-harness imports this file from the folder that it lies in, so it
needs nothing of the lab. Generation: a hit where an accepted form of the object occurs in the answer, both lower-cased
and without `:` `,` `.`. Choice: the likeliest option by the product of its token probabilities, without length
normalisation; a tie, also one but for rounding, goes against the truth.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
# Equal sums of float32 may come out this much apart, relative to them, when they are added up in another order.
ROUNDING = 1e-6


def load(kind: str, facts: str, split: str, language: str, **others: Any) -> dict[str, Any]:
    """The questions of one task as the split `test`. kind: ‘generation’, ‘general’, or ‘choice’: those with options."""
    from datasets import Dataset

    options = json.loads((FOLDER / "options.json").read_text(encoding="utf-8"))
    rows = []
    with (FOLDER / "questions.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if (row["facts"], row["split"], row["language"]) != (facts, split, language):
                continue
            if kind == "choice":
                if row["options"] is None:
                    continue
                row["options"] = options[row["options"]]
                row["truth"] = row["options"].index(row["object"])
            else:
                del row["options"]
            rows.append(row)
    return {"test": Dataset.from_list(rows)}


def question(doc: dict[str, Any]) -> str:
    """What is put to the model, with what its chat template writes around it, if it has one."""
    return doc["question"]


def target(doc: dict[str, Any]) -> str:
    """The object."""
    return doc["object"]


def options(doc: dict[str, Any]) -> list[str]:
    """The answers to choose among."""
    return doc["options"]


def truth(doc: dict[str, Any]) -> int:
    """The place of the object among them."""
    return doc["truth"]


def judge_generation(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer is a hit."""
    said = normalise(results[0])
    return {"generation_accuracy": float(any(accepted in said for accepted in doc["accepted"]))}


def judge_general(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer to a general question is a hit."""
    return {"general_accuracy": judge_generation(doc, results)["generation_accuracy"]}


def judge_choice(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Whether the truth ranks first, and its probability normalised over the options."""
    scores = [score for score, _ in results]
    own = scores[doc["truth"]]
    least = own - ROUNDING * max(1.0, abs(own))
    most = max(scores)
    total = most + math.log(sum(math.exp(score - most) for score in scores))
    return {
        "choice_accuracy": float(sum(score >= least for score in scores) == 1),
        "object_probability_normalised": math.exp(own - total),
    }


def normalise(text: str) -> str:
    """Lower case, without `:` `,` `.`, single spaces, composed accents."""
    return " ".join(re.sub(r"[:,.]", "", unicodedata.normalize("NFC", text).lower()).split())
