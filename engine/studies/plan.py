"""What a study runs: every combination of its axes as an experiment, those that memorise the same one after the other.

`planned_runs` needs no torch: a page shows with it what a study will be before it is started.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import yaml

from engine.corpus.resolve import resolve
from engine.description import put
from engine.experiment import Experiment
from engine.presets import load_preset
from engine.studies.alike import beginning, memorising
from engine.studies.study import DEPTH, METHOD, MODEL, SEED, Study

LONGEST_PLACE = 60  # characters of a record that is a value of an axis


@dataclass(frozen=True)
class PlannedRun:
    """One run: the resolved experiment, and where it stands: the value of each axis but the depth."""

    experiment: Experiment
    at: dict[str, Any]

    @cached_property
    def memorises(self) -> str:
        """Equal for runs whose stage 1 is the same."""
        return _digest(memorising(self.experiment))

    @cached_property
    def begins(self) -> str:
        """Equal for runs that begin with the same base and ask it about the same facts."""
        return _digest(beginning(self.experiment))

    @cached_property
    def differs(self) -> str:
        """Equal for runs that differ in nothing but their names and which depths they are looked at."""
        data = self.experiment.model_dump(mode="json", exclude={"name", "description"})
        data["stage1"].pop("checkpoint_epochs")
        data["stage2"].pop("branch_epochs")
        return _digest(data)

    def at_depths(self, wanted: Iterable[int]) -> PlannedRun:
        """The same, looked at these depths alone."""
        stage1 = self.experiment.stage1.model_copy(update={"checkpoint_epochs": tuple(sorted(wanted))})
        return PlannedRun(self.experiment.model_copy(update={"stage1": stage1}), self.at)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def planned_runs(study: Study) -> list[PlannedRun]:
    """Every run of a study, those that memorise the same beside each other, none twice.

    Raises ValueError that names the combination which is no experiment, or that would be lost, as it differs from
    another one in its depths alone.
    """
    groups: dict[str, list[PlannedRun]] = {}
    seen: dict[str, PlannedRun] = {}
    for planned in _combinations(study):
        first = seen.setdefault(planned.differs, planned)
        if first is planned:
            groups.setdefault(planned.memorises, []).append(planned)
        elif set(planned.experiment.branch_epochs) - set(first.experiment.branch_epochs):
            raise ValueError(
                f"with {_told(planned.at)}: that is the run with {_told(first.at)}, looked at other epochs of stage 1: "
                f"make {DEPTH} an axis"
            )
    return [planned for group in groups.values() for planned in group]


def _combinations(study: Study) -> Iterator[PlannedRun]:
    # The seeds first: a whole table of one seed can be looked at before the next begins.
    paths = sorted((p for p in study.axes if p != DEPTH), key=lambda path: (path != MODEL, path != SEED))
    axes = {path: study.axes[path] for path in paths} | ({METHOD: tuple(study.methods)} if study.methods else {})
    for values in product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        if study.leaves_out(at):
            continue
        try:
            yield _planned(study, at)
        except ValueError as error:
            raise ValueError(f"with {_told(at)}: {error}") from error


def _told(at: dict[str, Any]) -> str:
    return ", ".join(f"{path}={value}" for path, value in at.items()) or "the base experiment"


def _planned(study: Study, at: dict[str, Any]) -> PlannedRun:
    data = copy.deepcopy(_base(study, at.get(MODEL)))
    settings = {path: value for path, value in at.items() if path != METHOD} | study.methods.get(at.get(METHOD, ""), {})
    for path, value in settings.items():
        put(data, path, copy.deepcopy(value))  # a later path may change a part of it, for this run alone
    epochs = _epochs(data)
    depths = study.axes.get(DEPTH) or ([epochs] if "stage1.epochs" in settings else [])
    deepest = max((int(str(depth)) for depth in depths if str(depth).isdecimal()), default=0)
    if "stage1.epochs" not in settings and epochs is not None and deepest > epochs:
        put(data, "stage1.epochs", deepest)  # stage 1 goes as deep as it is looked at
    none = epochs == 0
    if DEPTH not in settings and (depths or none):
        put(data, DEPTH, None if none else list(depths))
        put(data, "stage2.branch_epochs", None)
    named = {METHOD: at[METHOD], **at} if METHOD in at else at  # the method first: names are cut
    words = ", ".join(str(value) if path == METHOD else f"{path} {value}" for path, value in named.items())
    data |= {"name": f"{study.name}: {words}"[:80] if words else study.name, "description": ""}
    experiment = resolve(Experiment.from_data(data))
    dumped = experiment.model_dump(mode="json")
    told = {path: value if path == METHOD else _place(dumped, path, value) for path, value in at.items()}
    return PlannedRun(experiment, told)


def _epochs(data: dict[str, Any]) -> int | None:
    """Those of stage 1; None where they are none, of which the experiment says what is wrong."""
    with suppress(LookupError, ValueError):
        given = str(read_path(data, "stage1.epochs"))  # a study's text is not read into numbers yet
        return int(given) if given.isdecimal() else None
    return None


def _place(resolved: dict[str, Any], path: str, given: Any) -> str | int | float | bool | None:
    """Where a run stands on an axis: the field's value, or, where that is no single one, what was given, in short.

    Facts are given as a number to generate, and listed once they are.
    """
    with suppress(LookupError, ValueError):
        value = read_path(resolved, path)
        if value is None or isinstance(value, (str, int, float)):
            return value
    if isinstance(given, str):
        # A study's text is not read into numbers yet.
        return next((kind(given) for kind in (int, float) if _is(kind, given)), given)
    if given is None or isinstance(given, (int, float)):
        return given
    words = yaml.safe_dump(given, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf).strip()
    words = re.sub(r"'([-+.\d]+)'", r"\1", words)  # numbers that were not read yet
    return words if len(words) <= LONGEST_PLACE else f"{words[:LONGEST_PLACE]}… {_digest(given)[:4]}"


def _is(kind: type[int] | type[float], text: str) -> bool:
    try:
        return math.isfinite(kind(text))
    except ValueError:
        return False


def _base(study: Study, model: Any) -> dict[str, Any]:
    """What the runs of a model begin from, as plain data."""
    named = study.experiments.get(model, study.experiment) if isinstance(model, str) else study.experiment
    experiment = load_preset(named) if isinstance(named, str) else Experiment.from_data(named)
    return experiment.model_dump(mode="json")


def read_path(data: Any, path: str) -> Any:
    """The value at a path such as `stage1.epochs` of plain data. Raises LookupError, ValueError."""
    for part in path.split("."):
        if not isinstance(data, (list, dict)):
            raise KeyError(part)
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data
