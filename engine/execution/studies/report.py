"""What a study found: each combination of its axes over all its seeds, with intervals, and by seed.

They are made of the runs' answers and stored, so that a page with a thousand runs need not open a thousand files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.evaluation.hits import key_token_judge
from engine.evaluation.intervals import interval
from engine.execution.report import key_tokens_of
from engine.execution.studies.averages import Whole, average
from engine.execution.studies.kept import OF_NO_FACTS, kept
from engine.execution.studies.represented import represented, split_of
from engine.experiment import Experiment
from engine.studies.compare import Comparison, compare, summed_by_fact
from engine.studies.study import SEED
from storage.acting import acting_as
from storage.answers import ANSWERS_NAME, EXPECTED, evaluated_checkpoints, list_facts, open_answers
from storage.checkpoints import BASE, CheckpointName
from storage.database import write
from storage.folders import run_folder
from storage.measurements import TRAINING_TOKENS, Result, list_measurements, list_results
from storage.representations import RepresentationFigure
from storage.runs import State, get_run
from storage.studies import (
    ALL_FACTS,
    StudyFigure,
    StudyRun,
    choice_of,
    group_of,
    is_choice,
    list_figures,
    list_study_runs,
    pooled_groups,
    replace_figures,
)

_JOIN = "answers a join prompts p on p.id = a.prompt join facts f on f.id = a.fact"
_SUMS = f"""select split, language, trained, sum(hit), sum(hit and not says_key_token(answer, {EXPECTED})), count(*),
    sum(choice_rank = 1), count(choice_rank), sum(1.0 / choice_options), a.fact
    from {_JOIN} where checkpoint = ? group by split, language, trained, a.fact order by a.fact"""

_ASKED = "checkpoint = ? and split = ? and language = ? and trained in (?, ?) group by a.fact"
_BY_FACT = f"select a.fact, sum(hit), count(*) from {_JOIN} where {_ASKED}"
_CHOICE_BY_FACT = f"""select a.fact, sum(choice_rank = 1), count(*) from {_JOIN}
    where choice_rank is not null and {_ASKED}"""
# Raised when figures are made of more than before: those of before are made anew.
_MADE = "5"

Asked = tuple[int, str, str, str, str]  # depth, kind, facts, split, language
# Of each fact (its number, and among which): hits, hits without the key token, answers, and of a choice what guessing
# would hit.
Sums = list[tuple[tuple[int, str], tuple[float, float, int, float]]]
_ByAsked = dict[Asked, dict[int, tuple[str, Whole]]]  # of each seed its run and that run's figure


def study_figures(db: Database, home: Path, study_id: str) -> list[StudyFigure]:
    """The figures of what is done, in the order of the plan."""
    update_figures(db, home, study_id)
    places = {group_of(run.at, SEED): place for place, run in enumerate(list_study_runs(db, study_id))}
    return sorted(list_figures(db, study_id), key=lambda f: (places.get(group_of(f.at, SEED), -1), f.depth))


def update_figures(db: Database, home: Path, study_id: str) -> None:
    """Make the figures anew of each combination of which other runs are done than when they were made."""
    pooled, done = pooled_groups(db, study_id), _done(db, study_id)
    for group in {**pooled, **done}:
        while pooled.get(group, []) != _signs(runs := done.get(group, [])):
            figures = list(_figures(db, home, runs))
            with acting_as(None), write(db):  # the lab's doing, whoever looks at them first
                done = _done(db, study_id)
                if done.get(group, []) == runs:
                    replace_figures(db, study_id, group, _signs(runs), figures)
                    break


def compare_figures(
    db: Database, home: Path, first: StudyFigure, others: Sequence[StudyFigure]
) -> list[Comparison | None]:
    """Each of the other figures against the first, paired over the facts and seeds that both were asked about."""
    return compare(_by_seed_and_fact(db, home, first), [_by_seed_and_fact(db, home, other) for other in others])


def _by_seed_and_fact(db: Database, home: Path, figure: StudyFigure) -> dict[tuple[int, int, str], tuple[float, int]]:
    found: dict[tuple[int, int, str], tuple[float, int]] = {}
    checkpoint = BASE if figure.kind == BASE else f"{figure.kind}@{figure.depth}"
    trained = {"held_out": (0, 0), "trained": (1, 1)}.get(figure.facts, (0, 1))
    asked = (checkpoint, figure.split.removesuffix(choice_of("")), figure.language, *trained)
    sql = _CHOICE_BY_FACT if is_choice(figure.split) else _BY_FACT
    for seed, own in figure.seeds.items():
        folder = run_folder(home, own["run"])
        if (folder / ANSWERS_NAME).is_file():
            with closing(open_answers(folder)) as answers:
                among = _among(answers)
                found |= {(seed, fact, among): (hits, count) for fact, hits, count in answers.execute(sql, asked)}
    return found


def _among(answers: Database) -> str:
    """What stands for a run's facts: equal where all of them are, as where they are written out in the experiment."""
    told = [(fact["relation"], fact["subject"], fact["object"]) for fact in list_facts(answers)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _done(db: Database, study_id: str) -> dict[str, list[StudyRun]]:
    """The done runs by group."""
    found: dict[str, list[StudyRun]] = {}
    for run in list_study_runs(db, study_id):
        if run.state is State.DONE:
            found.setdefault(group_of(run.at, SEED), []).append(run)
    return found


def _signs(runs: list[StudyRun]) -> list[str]:
    return [f"{run.run} {run.finished_at} {_MADE}" for run in runs]


def pooled_figure(at: dict[str, Any], asked: Asked, by_seed: Mapping[int, tuple[str | None, Sums]]) -> StudyFigure:
    """The figure of all seeds. by_seed: of each its run and the sums of its facts."""
    table = summed_by_fact(row for _, sums in by_seed.values() for row in sums)
    if asked[3] == TRAINING_TOKENS:
        low, high = float(table[:, 0].min()), float(table[:, 0].max())
    else:
        low, high = interval(table[:, 0], table[:, 2], share=True)
    n = table[:, 2].sum()
    seeds = {
        seed: {"value": sum(s[0] for _, s in sums) / sum(s[2] for _, s in sums)} | ({"run": run} if run else {})
        for seed, (run, sums) in sorted(by_seed.items())
    }
    value, unaided = (float(table[:, column].sum() / n) for column in (0, 1))
    chance = float(table[:, 3].sum() / n) if is_choice(asked[3]) else None
    return StudyFigure(at, *asked, value, low, high, unaided, int(n), len(table), seeds, chance)


def averaged_figure(at: dict[str, Any], asked: Asked, mean: Whole, seeds: dict[int, dict[str, Any]]) -> StudyFigure:
    """The figure of what was measured as a whole, by its average over the seeds."""
    return StudyFigure(at, *asked, mean.value, mean.low, mean.high, mean.value, mean.n, mean.n_facts, seeds)


def facts_behind(
    db: Database, home: Path, study_id: str
) -> dict[str, tuple[dict[Asked, dict[int, Sums]], dict[Asked, dict[int, Whole]]]]:
    """What the figures of each group of runs are made of, by seed: sums of facts, and what is measured as a whole."""
    found = {}
    for group, runs in _done(db, study_id).items():
        by_asked, whole = _gathered(db, home, runs)
        found[group] = (
            {asked: {seed: sums for seed, (_, sums) in by_seed.items()} for asked, by_seed in by_asked.items()},
            {asked: {seed: own for seed, (_, own) in figures.items()} for asked, figures in whole.items()},
        )
    return found


def _figures(db: Database, home: Path, runs: list[StudyRun]) -> Iterator[StudyFigure]:
    at = json.loads(group_of(runs[0].at, SEED)) if runs else {}
    by_asked, whole = _gathered(db, home, runs)
    for asked, by_seed in sorted(by_asked.items()):
        yield pooled_figure(at, asked, by_seed)
    for asked, figures in sorted(whole.items()):
        seeds = {seed: {"value": figure.value, "run": run} for seed, (run, figure) in sorted(figures.items())}
        yield averaged_figure(at, asked, average([figure for _, figure in figures.values()]), seeds)


def _gathered(
    db: Database, home: Path, runs: list[StudyRun]
) -> tuple[dict[Asked, dict[int, tuple[str | None, Sums]]], _ByAsked]:
    by_asked: dict[Asked, dict[int, tuple[str | None, Sums]]] = {}
    whole: _ByAsked = {}
    for stored in runs:
        # A depth that came later is a run more; of the base it has what the other has.
        for seed, asked, found in _of_run(db, home, stored.run):
            if isinstance(found, Whole):
                whole.setdefault(asked, {}).setdefault(seed, (stored.run, found))
            else:
                by_asked.setdefault(asked, {}).setdefault(seed, (stored.run, found))
    return by_asked, whole


def _of_run(db: Database, home: Path, run_id: str) -> Iterator[tuple[int, Asked, Sums | Whole]]:
    """What a run was asked, with its seed."""
    run, folder = get_run(db, run_id), run_folder(home, run_id)
    if not (folder / ANSWERS_NAME).is_file():
        return
    branches = Experiment.from_record(run.experiment).branch_epochs
    tokens = {row["stage"]: row["value"] for row in list_measurements(db, run_id, TRAINING_TOKENS)}
    with closing(open_answers(folder, key_token_judge(key_tokens_of(run.experiment)))) as answers:
        among = _among(answers)

        # What the base says is said at every depth.
        def depths_of(name: CheckpointName) -> tuple[int, ...]:
            return (branches or (0,)) if name.kind == BASE else (name.epoch,)

        for figure in represented(answers):
            name = CheckpointName.parse(figure.checkpoint)
            for depth in depths_of(name):
                split = split_of(figure.measure, figure.prompts)
                yield run.seed, (depth, name.kind, ALL_FACTS, split, ""), _whole(figure, among)
        for row in kept(list_results(db, run_id)):
            name = CheckpointName.parse(row.checkpoint)
            for depth in depths_of(name):
                yield run.seed, (depth, name.kind, OF_NO_FACTS, row.split, row.language), _whole(row, OF_NO_FACTS)
        for checkpoint in evaluated_checkpoints(answers):
            name = CheckpointName.parse(checkpoint)
            found: dict[tuple[str, str, str], Sums] = {}
            for split, language, trained, hits, unaided, count, first, choices, chance, fact in answers.execute(
                _SUMS, [checkpoint]
            ):
                for facts in ("trained" if trained else "held_out", ALL_FACTS):
                    found.setdefault((facts, split, language), []).append(((fact, among), (hits, unaided, count, 0.0)))
                    if choices:
                        choice = found.setdefault((facts, choice_of(split), language), [])
                        choice.append(((fact, among), (first, first, choices, chance)))
            if name.kind != BASE and checkpoint in tokens:
                whole = (tokens[checkpoint], tokens[checkpoint], 1, 0.0)
                found[ALL_FACTS, TRAINING_TOKENS, ""] = [((0, run_id), whole)]
            for depth in depths_of(name):
                for asked, sums in found.items():
                    yield run.seed, (depth, name.kind, *asked), sums


def _whole(figure: RepresentationFigure | Result, among: str) -> Whole:
    assert figure.low is not None and figure.high is not None
    return Whole(figure.value, figure.low, figure.high, figure.n, figure.n_facts, among)
