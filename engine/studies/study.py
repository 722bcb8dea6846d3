"""The study: one frozen description of a grid of experiments that are compared.

    study = Study.from_text(open("mine.yaml").read())
    for planned in planned_runs(study):     # engine/studies/plan.py
        …

An *axis* is a field of the experiment with the values that it takes, such as `stage2.facts: [1, 10, 50]`. The axis
`stage1.checkpoint_epochs` is no training of its own for each value: its values are the depths of one stage 1, each
evaluated, and each gone on from in stage 2.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from engine.description import Described, is_record, read_as
from engine.experiment import Experiment
from engine.fields import Frozen, Label, Paragraph, label
from engine.plain_yaml import read_yaml

DEPTH = "stage1.checkpoint_epochs"
SEED, MODEL, METHOD = "seed", "model", "method"
MAX_RUNS, MAX_VALUES, MAX_AXES = 5000, 200, 12
# What cannot differ between the runs of a study, or would not be a difference of what is run.
_NO_AXES = ("name", "description", "relations", "stage2.branch_epochs")


def _as_described(data: dict[str, Any]) -> dict[str, Any]:
    """A written experiment, checked where it stands, with what it says and no more."""
    return Experiment.from_data(data, notes=[]).model_dump(mode="json", exclude_unset=True)


PresetOrExperiment = Label | Annotated[dict[str, Any], read_as(_as_described)]
Path = Annotated[str, Field(pattern=r"^[a-z_0-9]+(\.[a-z_0-9]+)*$", max_length=100)]
Settings = Annotated[dict[Path, Any], Field(max_length=50)]
Values = Annotated[tuple[Any, ...], Field(min_length=1, max_length=MAX_VALUES)]


class Study(Frozen, Described):
    """A grid of experiments.

    experiment: a preset's name, or a description: what every run is but for the axes. experiments: the same for other
    models, by the model's name: the settings that suit one seldom suit another. axes: fields of the experiment, such
    as `stage2.facts`, and their values; every combination is run. Runs that memorise the same share stage 1.
    methods: named sets of fields, an axis of their own (`method`); what a method sets, no axis changes. leave_out:
    combinations that are not run, each by values of some axes, such as `{stage2.facts: 50, stage2.epochs: 8}`. keep:
    whose models stay when they have been asked; those of others go as soon as no run of the study goes on from them.
    """

    FIELD, THING = "experiment", "a study"

    name: Annotated[str, Field(max_length=10_000), label(80, 1)] = "study"
    description: Paragraph = ""
    experiment: PresetOrExperiment = "quick"
    experiments: Annotated[dict[Label, PresetOrExperiment], Field(max_length=100, default_factory=dict)]
    axes: Annotated[dict[Path, Values], Field(max_length=MAX_AXES, default_factory=dict)]
    methods: Annotated[dict[Label, Settings], Field(max_length=50, default_factory=dict)]
    leave_out: Annotated[tuple[Settings, ...], Field(max_length=200)] = ()
    keep: Literal["all", "first seed", "none"] = "all"

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Study:
        if is_record(info):
            return self
        if not self.axes and not self.methods:
            raise ValueError("axes: there is none, and no methods: name at least one field and its values")
        for path in (*self.axes, *(path for settings in self.methods.values() for path in settings)):
            if path in _NO_AXES or path.partition(".")[0] == "evaluation":
                raise ValueError(f"axes: ‘{path}’ cannot be one: the runs of a study differ in how they are trained")
        if METHOD in self.axes:
            raise ValueError(f"axes: ‘{METHOD}’ is the axis of the methods: describe them under methods")
        for path, values in self.axes.items():
            if len({repr(value) for value in values}) < len(values):
                raise ValueError(f"axes: ‘{path}’ has a value twice")
        self._check_left_out()
        if (count := self.most_runs) > MAX_RUNS:
            raise ValueError(f"axes: they make {count:,} runs, more than {MAX_RUNS:,}: leave some values out")
        return self

    def keeps(self, seed: int) -> bool:
        """Whether the models of a run with this seed stay when they have been asked."""
        seeds = self.axes.get(SEED)
        return self.keep == "all" or (self.keep == "first seed" and (not seeds or str(seed) == str(seeds[0])))

    def _check_left_out(self) -> None:
        known = {path: set(map(str, values)) for path, values in self.axes.items() if path != DEPTH}
        known |= {METHOD: set(self.methods)} if self.methods else {}
        for combination in self.leave_out:
            for path, value in combination.items():
                if path not in known:
                    raise ValueError(f"leave_out: ‘{path}’ is no axis of runs: name some of {', '.join(known)}")
                if str(value) not in known[path]:
                    raise ValueError(f"leave_out: {path} is never {value}: it is {', '.join(sorted(known[path]))}")

    def leaves_out(self, at: dict[str, Any]) -> bool:
        """Whether a combination is not run. at: the value of each axis."""
        return any(
            all(str(at.get(path)) == str(value) for path, value in combination.items())
            for combination in self.leave_out
        )

    @property
    def most_runs(self) -> int:
        """How many runs it makes; fewer where combinations are the same run."""
        axes = {path: values for path, values in self.axes.items() if path != DEPTH}
        axes |= {METHOD: tuple(self.methods)} if self.methods else {}
        count = prod(map(len, axes.values()))
        if not self.leave_out or count > MAX_RUNS:
            return count
        return sum(not self.leaves_out(dict(zip(axes, values, strict=True))) for values in product(*axes.values()))


def set_axis(data: dict[str, Any], assignment: str) -> None:
    """Apply one `path.to.field=[values]` (in YAML) to the plain data of a study, in place.

    Raises ValueError where it is no such assignment.
    """
    path, sign, text = assignment.partition("=")
    if not sign or not path.strip():
        raise ValueError(f"‘{assignment}’ is not of the form path.to.field=[values]")
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise ValueError(f"the values of ‘{path}’ are not valid YAML: {text} ({error})") from error
    data["axes"] = {**data["axes"], path.strip(): values if isinstance(values, list) else [values]}
