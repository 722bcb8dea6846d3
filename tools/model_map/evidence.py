"""One row of a map on several seeds as a table of its own: each seed's figure, and all seeds' with an interval.

The interval is that of a mean over facts (engine/evaluation/intervals.py), the facts of all seeds drawn again together:
it says how far other facts of the same seeds might lie, not how far other seeds might. Those stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlite_utils import Database

from engine.evaluation.intervals import interval, wilson
from engine.evaluation.questions import KEY_SPLIT
from engine.evaluation.summary import UNAIDED
from storage.answers import open_answers
from storage.checkpoints import BASE, CheckpointName
from storage.folders import run_folder
from storage.measurements import list_results
from storage.runs import Run, State
from tools.model_map.plan import Plan
from tools.model_map.runs import experiment_of, find_run

METRIC, GENERAL = "generation_accuracy", "general_accuracy"
HEAD = (
    "| prompts | all seeds, 95 % | without the key token said | each seed | answers |\n| --- | --- | --- | --- | --- |"
)
BEFORE, AFTER = "memorised", "generalised"
LANGUAGES = {"en": "English", "es": "Spanish", "de": "German", "ja": "Japanese", "zh": "Chinese"}
ASKED = {
    "key token, after stage 1": (BEFORE, KEY_SPLIT, "en"),
    "train, before stage 2": (BEFORE, "train", "en"),
    "test, before stage 2": (BEFORE, "test", "en"),
    "unrelated, before stage 2": (BEFORE, "unrelated", "en"),
    "key token, after stage 2": (AFTER, KEY_SPLIT, "en"),
    "train, after stage 2": (AFTER, "train", "en"),
    **{
        f"{split}, after stage 2, {named}": (AFTER, split, code)
        for split in ("test", "unrelated", "decoy")
        for code, named in LANGUAGES.items()
    },
}


def evidence_table(db: Database, home: Path, plan: Plan, name: str) -> str:
    """The row `name` of a plan, as Markdown. Raises ValueError where there is none, or none of its runs is done."""
    rows = plan.chosen([name])
    runs = [run for row in rows if (run := find_run(db, experiment_of(row))) and run.state is State.DONE]
    if not runs:
        raise ValueError(f"no run of the row {name} is done")
    seeds = ", ".join(str(run.seed) for run in runs)
    lines = [line for words, what in ASKED.items() for line in _line(db, home, runs, rows[0].facts, words, *what)]
    lines += _general_lines(db, runs)
    return f"{name}, seeds {seeds}\n\n{HEAD}\n" + "\n".join(lines) + f"\n\n```\n{rows[0].command}\n```"


def _line(
    db: Database, home: Path, runs: list[Run], facts: str, words: str, kind: str, split: str, language: str
) -> Iterator[str]:
    """One line of the table; none where it was not asked."""
    values: dict[str, list[float]] = {METRIC: [], UNAIDED: []}
    sums: list[tuple[float, int]] = []
    for run in runs:
        wanted = [r for r in list_results(db, run.id) if (r.facts, r.split, r.language) == (facts, split, language)]
        named = [r.checkpoint for r in wanted if CheckpointName.parse(r.checkpoint).kind == kind]
        for row in wanted:
            if named and row.checkpoint == named[-1] and row.metric in values:
                values[row.metric].append(row.value)
        if named:
            sums += _by_fact(home, run, named[-1], facts, split, language)
    if not sums:
        return
    table = np.array(sums, dtype=np.float64)
    low, high = interval(table[:, 0], table[:, 1], share=True)
    each = " ".join(f"{value:.2f}" for value in values[METRIC])
    mean, unaided = (float(np.mean(values[metric])) for metric in (METRIC, UNAIDED))
    n = int(table[:, 1].sum())
    yield f"| {words} | {mean:.2f} ({low:.2f} to {high:.2f}) | {unaided:.2f} | {each} | {n} about {len(sums)} facts |"


def _general_lines(db: Database, runs: list[Run]) -> Iterator[str]:
    """What the base knew, before and after each stage. Every seed has the same questions: they count once."""
    for words, kind in {"base": BASE, "after stage 1": BEFORE, "after stage 2": AFTER}.items():
        figures = ([r for r in list_results(db, run.id) if r.metric == GENERAL] for run in runs)
        found = ([r for r in rows if CheckpointName.parse(r.checkpoint).kind == kind] for rows in figures)
        last = [rows[-1] for rows in found if rows]
        if last:
            value = float(np.mean([r.value for r in last]))
            low, high = wilson(value, last[0].n)
            each = " ".join(f"{r.value:.2f}" for r in last)
            mean = f"{value:.2f} ({low:.2f} to {high:.2f})"
            yield f"| general questions, {words} | {mean} | | {each} | {last[0].n} a seed |"


def _by_fact(home: Path, run: Run, checkpoint: str, facts: str, split: str, language: str) -> list[tuple[float, int]]:
    """For each fact that was asked: its hits, and how many answers there are."""
    answers = open_answers(run_folder(home, run.id))
    found = answers.execute(
        """select sum(answers.hit), count(*) from answers
        join prompts on prompts.id = answers.prompt join facts on facts.id = answers.fact
        where checkpoint = ? and trained = ? and split = ? and language = ? group by answers.fact""",
        (checkpoint, int(facts == "trained"), split, language),
    )
    return [(float(hits), int(count)) for hits, count in found]
