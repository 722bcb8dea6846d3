"""What a study found: each combination of its axes over all its seeds, with intervals, and by seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from engine.evaluation.hits import key_token_judge
from engine.evaluation.intervals import interval
from engine.execution.report import key_tokens_of
from engine.experiment import Experiment
from engine.studies.study import DEPTH, SEED
from storage.answers import ANSWERS_NAME, evaluated_checkpoints, open_answers
from storage.checkpoints import BASE, CheckpointName
from storage.folders import run_folder
from storage.runs import State, get_run
from storage.studies import StudyRun, get_study, list_study_runs

_SUMS = """select split, language, trained, sum(hit), sum(hit and not says_key_token(answer, object)), count(*)
    from answers join prompts on prompts.id = answers.prompt join facts on facts.id = answers.fact
    where checkpoint = ? group by split, language, trained, answers.fact order by answers.fact"""


@dataclass(frozen=True)
class Figure:
    """A generation accuracy over all seeds: at which values of the axes, of which checkpoint, asked what.

    kind: base, memorised or generalised. facts: held_out or trained. low, high: the 95 % interval, facts being the
    unit. unaided: without answers that say a key token before the object. seeds: each seed's own value.
    """

    at: dict[str, Any]
    kind: str
    facts: str
    split: str
    language: str
    value: float
    low: float
    high: float
    unaided: float
    n: int
    n_facts: int
    seeds: dict[int, float]


_Asked = tuple[str, str, str, str]  # kind, facts, split, language
_Sums = list[tuple[float, float, int]]  # of each fact: hits, hits without the key token, answers


def study_figures(db: Database, home: Path, study_id: str) -> list[Figure]:
    """The figures of what is done, in the order of the plan. Raises KeyError when there is no such study."""
    get_study(db, study_id)
    pooled: dict[tuple[Any, ...], tuple[dict[str, Any], _Asked, dict[int, _Sums]]] = {}
    for run in list_study_runs(db, study_id):
        if run.state is not State.DONE:
            continue
        for seed, at, asked, sums in _of_run(db, home, run):
            key = (*((k, repr(v)) for k, v in at.items()), *asked)
            pooled.setdefault(key, (at, asked, {}))[2].setdefault(seed, sums)
    return [_figure(*found) for found in pooled.values()]


def _of_run(db: Database, home: Path, stored: StudyRun) -> Iterator[tuple[int, dict[str, Any], _Asked, _Sums]]:
    run = get_run(db, stored.run)
    folder = run_folder(home, run.id)
    if not (folder / ANSWERS_NAME).is_file():
        return
    at = {path: value for path, value in stored.at.items() if path != SEED}
    with closing(open_answers(folder, key_token_judge(key_tokens_of(run.experiment)))) as answers:
        for checkpoint in evaluated_checkpoints(answers):
            name = CheckpointName.parse(checkpoint)
            # What the base says is said at every depth.
            depths = Experiment.from_record(run.experiment).branch_epochs if name.kind == BASE else (name.epoch,)
            found: dict[_Asked, _Sums] = {}
            for split, language, trained, hits, unaided, count in answers.execute(_SUMS, [checkpoint]):
                asked = (name.kind, "trained" if trained else "held_out", split, language)
                found.setdefault(asked, []).append((hits, unaided, count))
            for depth in depths:
                for asked, sums in found.items():
                    yield run.seed, {**at, DEPTH: depth}, asked, sums


def _figure(at: dict[str, Any], asked: _Asked, by_seed: dict[int, _Sums]) -> Figure:
    table = np.array([row for sums in by_seed.values() for row in sums], dtype=np.float64)
    low, high = interval(table[:, 0], table[:, 2], share=True)
    n = table[:, 2].sum()
    seeds = {}
    for seed, sums in sorted(by_seed.items()):
        own = np.array(sums, dtype=np.float64)
        seeds[seed] = float(own[:, 0].sum() / own[:, 2].sum())
    value, unaided = (float(table[:, column].sum() / n) for column in (0, 1))
    return Figure(at, *asked, value, low, high, unaided, int(n), len(table), seeds)
