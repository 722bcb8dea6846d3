"""A study written straight through storage, for looking at its page: its figures are drawn, not measured."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sqlite_utils import Database

from engine.evaluation.intervals import wilson
from engine.execution.studies.queue import queue_study
from engine.execution.studies.report import _done, _signs
from engine.studies.presets import STUDIES
from engine.studies.study import DEPTH, SEED, Study
from storage.runs import State
from storage.studies import NewRun, StudyFigure, add_study, get_study, list_study_runs, replace_figures

FACTS = 50


def paper(db: Database, *, done: int = 18, name: str = "paper-main") -> str:
    """The shipped study with its first runs done; returns its id."""
    plan = STUDIES.load("paper-main").model_dump()
    study = queue_study(db, Study.from_data(plan | {"name": name}))
    finish(db, study, done)
    return study


def large(db: Database, runs: int = 1000) -> str:
    """A study of many runs, all done; their experiments are none that could be run."""
    seeds, values = 5, runs // 5
    at = [{SEED: seed, "stage1.learning_rate": value * 1e-6} for seed in range(seeds) for value in range(1, values + 1)]
    new = [
        NewRun("large", {"model": "embedded", "seed": a[SEED], "stage1": {}, "relations": []}, a, str(i), "")
        for i, a in enumerate(at)
    ]
    axes = {SEED: list(range(seeds)), DEPTH: [3, 20], "stage1.learning_rate": [v * 1e-6 for v in range(1, values + 1)]}
    study = add_study(db, name="large", plan={"name": "large", "description": "", "axes": axes}, runs=new)
    finish(db, study, runs)
    return study


def finish(db: Database, study: str, done: int) -> None:
    """End the first runs of a study, and draw what they found."""
    runs = list_study_runs(db, study)
    for place, run in enumerate(runs[:done]):
        times = {
            "started_at": f"2026-03-01T10:{place % 60:02}:00.000Z",
            "finished_at": f"2026-03-01T10:{place % 60:02}:40.000Z",
        }
        db.table("runs").update(run.run, {"state": State.DONE.value, **times})
    depths = [int(depth) for depth in get_study(db, study).plan["axes"][DEPTH]]
    for group, members in _done(db, study).items():
        at = {path: value for path, value in members[0].at.items() if path != SEED}
        by_seed = {run.at[SEED]: run.run for run in members}
        replace_figures(db, study, group, _signs(members), drawn(at, depths, by_seed))


def drawn(at: dict[str, Any], depths: list[int], by_seed: dict[int, str]) -> Iterator[StudyFigure]:
    """Figures that grow with depth and facts, as in the paper."""
    shown = float(at.get("stage2.facts", 10)) ** 0.5 / 8
    for depth in depths:
        deep = depth / (depth + 4)
        for kind, split, height in (
            ("base", "train", 0.0),
            ("memorised", "key", min(1.0, 1.3 * deep)),
            ("memorised", "train", 0.2 * deep),
            ("generalised", "train", deep * min(1.0, 0.4 + shown)),
            ("generalised", "test", deep * min(1.0, 0.3 + shown)),
            ("generalised", "unrelated", 0.02),
            ("generalised", "decoy", 0.4 * deep),
        ):
            for facts in ("held_out", "trained"):
                for language in ("en", "es") if kind == "base" or split == "test" else ("en",):
                    chance = random.Random(f"{at} {depth} {kind} {split} {facts} {language}")
                    values = [min(1.0, max(0.0, height + chance.uniform(-0.06, 0.06))) for _ in by_seed]
                    seeds = {
                        seed: {"value": own, "run": by_seed[seed]} for seed, own in zip(by_seed, values, strict=True)
                    }
                    n, value = len(values), sum(values) / len(values)
                    low, high = wilson(value, FACTS * n)
                    yield StudyFigure(
                        at, depth, kind, facts, split, language, value, low, high, value, 500 * n, FACTS * n, seeds
                    )
