"""Recordings of the same study with other seeds as one: measured on several machines, or one after the other.

    pool([read_recording(Path("mine.json.xz")), read_recording(Path("theirs.json.xz"))])

The figures are those that one lab would have made of all the runs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.execution.studies.recording import MADE_OF, StudyRecording, command_of, figure_of, recorded_figure
from engine.execution.studies.report import Asked, pooled_figure
from engine.execution.studies.represented import Pooled, pooled
from engine.studies.study import SEED
from storage.studies import StoredStudy, StudyFigure, group_of


def pool(recordings: Sequence[StudyRecording]) -> StudyRecording:
    """One recording of all the seeds.

    Raises ValueError where they are not of the same study but for their seeds, have a seed in common, stand on
    different weights, or were made by a lab that kept no sums.
    """
    first = recordings[0]
    seeds: list[int] = []
    for recording in recordings:
        if _but_seeds(recording) != _but_seeds(first):
            raise ValueError("they are of different studies: pool recordings that differ in nothing but their seeds")
        if {(m.name, m.base) for m in recording.models} != {(m.name, m.base) for m in first.models}:
            raise ValueError("they stand on different weights: pool recordings of the same models")
        own = list(map(int, recording.study["axes"].get(SEED, ())))
        if not own or set(own) & set(seeds):
            raise ValueError("they have a seed in common, or name none: pool recordings of different seeds")
        seeds += own
    left_out = [combination for recording in recordings for combination in recording.study.get("leave_out") or ()]
    plan = first.study | {
        "axes": first.study["axes"] | {SEED: seeds},
        "leave_out": [one for place, one in enumerate(left_out) if one not in left_out[:place]],
    }
    return StudyRecording(
        version=first.version,
        study=plan,
        command=command_of(StoredStudy("", first.name, plan, "")),
        at=max(recording.at for recording in recordings),
        seconds={name: round(sum(r.seconds.get(name, 0.0) for r in recordings), 1) for name in first.seconds},
        environment=first.environment,
        runs=sum(recording.runs for recording in recordings),
        models=first.models,
        figures=tuple(_pooled(figures) for figures in _together(recordings)),
    )


def _but_seeds(recording: StudyRecording) -> dict[str, Any]:
    """The plan but for its seeds, and for what some of them left out."""
    axes = {path: values for path, values in recording.study["axes"].items() if path != SEED}
    left_out = [combination for combination in recording.study.get("leave_out") or () if SEED not in combination]
    return recording.study | {"axes": axes, "leave_out": left_out}


def _asked(figure: StudyFigure) -> Asked:
    return figure.depth, figure.kind, figure.facts, figure.split, figure.language


def _together(recordings: Sequence[StudyRecording]) -> list[list[dict[str, Any]]]:
    """The figures of the same thing, beside each other."""
    found: dict[tuple[str, Asked], list[dict[str, Any]]] = {}
    for recording in recordings:
        for data in recording.figures:
            figure = figure_of(data)
            if MADE_OF not in data:
                raise ValueError("one was made by an older lab, without the sums of its facts: measure it again")
            found.setdefault((group_of(figure.at, SEED), _asked(figure)), []).append(dict(data))
    return list(found.values())


def _pooled(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, asked = figure_of(figures[0]), _asked(figure_of(figures[0]))
    made_of = {int(seed): of for data in figures for seed, of in data[MADE_OF].items()}
    if isinstance(next(iter(made_of.values())), dict):
        looked = {seed: Pooled(**of) for seed, of in sorted(made_of.items())}
        whole = pooled(list(looked.values()))
        values = {seed: {"value": of.value} for seed, of in looked.items()}
        figure = StudyFigure(first.at, *asked, seeds=values, unaided=whole.value, **vars(whole))
        return recorded_figure(figure, {}, {asked: looked})
    sums = {
        seed: [((fact, among), tuple(numbers)) for fact, among, *numbers in zip(*columns, strict=True)]
        for seed, columns in sorted(made_of.items())
    }
    figure = pooled_figure(first.at, asked, {seed: (None, of_facts) for seed, of_facts in sums.items()})
    return recorded_figure(figure, {asked: sums}, {})
