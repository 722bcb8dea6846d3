"""Recordings of the same study with other seeds, or other methods, as one: measured on several machines, or one after
the other.

    pool([read_recording(Path("mine.json.xz")), read_recording(Path("theirs.json.xz"))])

The figures are those that one lab would have made of all the runs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.execution.studies.averages import Whole, average
from engine.execution.studies.recording import (
    MADE_OF,
    RecordedModel,
    StudyRecording,
    command_of,
    figure_of,
    recorded_figure,
    same_key,
)
from engine.execution.studies.report import Asked, averaged_figure, pooled_figure
from engine.experiment import Experiment
from engine.models.identity import is_base, is_here
from engine.studies.study import METHOD, SEED, Study
from storage.studies import StoredStudy, StudyFigure, group_of


def pool(recordings: Sequence[StudyRecording]) -> StudyRecording:
    """One recording of all the seeds, or of all the methods.

    Raises ValueError where they are not of the same study but for their seeds or their methods, measured the same
    thing, stand on different weights, or were made by a lab that kept no sums.
    """
    first = recordings[0]
    for recording in recordings:
        if _common(recording) != _common(first):
            raise ValueError(
                "they are of different studies: pool recordings that differ in nothing but their seeds or their methods"
            )
        if [m.name for m in recording.models] != [m.name for m in first.models]:
            raise ValueError("they are of different models: pool recordings of the same ones")
        for one, other in zip(first.models, recording.models, strict=True):
            _check_weights(one, other)
    plan = first.study | {"axes": dict(first.study["axes"])}
    if all(sorted(_seeds(recording)) == sorted(_seeds(first)) for recording in recordings):
        by, plan["methods"] = METHOD, _methods(recordings)
    elif all(recording.study.get("methods") == first.study.get("methods") for recording in recordings):
        by, plan["axes"][SEED] = SEED, _once([seed for recording in recordings for seed in _seeds(recording)], "seed")
    else:
        raise ValueError("they differ in their seeds and in their methods: pool those of the same methods first")
    plan["leave_out"] = _left_out(recordings, by)
    Study.from_data(plan)
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


def _common(recording: StudyRecording) -> dict[str, Any]:
    """The plan but for its seeds, its methods, and what is left out of some of those."""
    axes = {path: values for path, values in recording.study["axes"].items() if path != SEED}
    left_out = [one for one in recording.study.get("leave_out") or () if not {SEED, METHOD} & one.keys()]
    return recording.study | {"axes": axes, "leave_out": left_out, "methods": bool(recording.study.get("methods"))}


def _check_weights(one: RecordedModel, other: RecordedModel) -> None:
    """Raises ValueError unless both stand on the same weights."""
    if one.base == other.base:
        return
    # The key of a base stands for its key tokens, too. Where those differ, both are held against what lies here.
    kept = [(Experiment.from_record(model.experiment), model.base) for model in (one, other)]
    lie_here = all(is_here(experiment) and is_base(key, experiment) for experiment, key in kept)
    if same_key(one.experiment, other.experiment) or not lie_here:
        raise ValueError(
            f"they stand on different weights of ‘{one.name}’, or on others than lie here: pool recordings of the same "
            "ones, on a machine where they are"
        )


def _seeds(recording: StudyRecording) -> list[int]:
    return list(map(int, recording.study["axes"].get(SEED, ())))


def _methods(recordings: Sequence[StudyRecording]) -> dict[str, Any]:
    named = [(name, fields) for recording in recordings for name, fields in recording.study.get("methods", {}).items()]
    _once([name for name, _ in named], "method")
    return dict(named)


def _left_out(recordings: Sequence[StudyRecording], by: str) -> list[dict[str, Any]]:
    """What is left out of all of them; what only some leave out, for their own seeds or methods (`by`) alone."""
    found: list[dict[str, Any]] = []
    for recording in recordings:
        own = _seeds(recording) if by == SEED else list(recording.study.get("methods", {}))
        for left in recording.study.get("leave_out") or ():
            everywhere = by in left or all(left in (other.study.get("leave_out") or ()) for other in recordings)
            found += [left] if everywhere else [{**left, by: one} for one in own]
    return [left for place, left in enumerate(found) if left not in found[:place]]


def _once(values: list[Any], what: str) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise ValueError(f"they have a {what} in common, or name none: pool recordings of different {what}s")
    return values


def _asked(figure: StudyFigure) -> Asked:
    return figure.depth, figure.kind, figure.facts, figure.split, figure.language


def _together(recordings: Sequence[StudyRecording]) -> list[list[dict[str, Any]]]:
    """The figures of the same thing, beside each other."""
    found: dict[tuple[str, Asked], list[dict[str, Any]]] = {}
    for recording in recordings:
        for data in recording.figures:
            figure = figure_of(data)
            if not data.get(MADE_OF):
                raise ValueError("one was made by an older lab, without the sums of its facts: measure it again")
            found.setdefault((group_of(figure.at, SEED), _asked(figure)), []).append(dict(data))
    return list(found.values())


def _pooled(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, asked = figure_of(figures[0]), _asked(figure_of(figures[0]))
    made_of = {int(seed): of for data in figures for seed, of in data[MADE_OF].items()}
    if isinstance(next(iter(made_of.values())), dict):
        # Older labs did not say which facts it was: each seed's own.
        by_seed = {seed: Whole(**{"among": str(seed), **of}) for seed, of in sorted(made_of.items())}
        values = {seed: {"value": of.value} for seed, of in by_seed.items()}
        return recorded_figure(
            averaged_figure(first.at, asked, average(list(by_seed.values())), values), {}, {asked: by_seed}
        )
    sums = {
        seed: [((fact, among), tuple(numbers)) for fact, among, *numbers in zip(*columns, strict=True)]
        for seed, columns in sorted(made_of.items())
    }
    figure = pooled_figure(first.at, asked, {seed: (None, of_facts) for seed, of_facts in sums.items()})
    return recorded_figure(figure, {asked: sums}, {})
