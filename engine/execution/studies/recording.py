"""A study that was measured before, as one small file: every figure with its seeds; no answers, no models.

    record(db, home, "1a2b3c4d", Path("paper-main-embedded.json.xz"))
    read_recording(Path("paper-main-embedded.json.xz")).figures

The lab ships some, so that the page Paper has figures at once. Each holds for the weights that it names.
"""

from __future__ import annotations

import json
import logging
import lzma
import shlex
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from sqlite_utils import Database

from engine.execution.recorded.record import base_of
from engine.execution.report import key_tokens_of
from engine.execution.studies.averages import Whole
from engine.execution.studies.report import Asked, Sums, facts_behind, study_figures
from engine.experiment import Experiment
from engine.fields import Frozen
from engine.models.folders import write_whole
from engine.models.identity import Here, how_here
from engine.studies.alike import NUMBER, as_meant
from engine.studies.presets import STUDIES
from engine.studies.study import MODEL, SEED
from storage.folders import run_folder
from storage.runs import Run, State, get_run
from storage.studies import StoredStudy, StudyFigure, get_study, group_of, list_study_runs

logger = logging.getLogger("engine")

SHIPPED = Path(__file__).with_name("recorded")  # a file for each, NAME.json.xz
ENDING = ".json.xz"
VERSION = 1
MOST_BYTES = 100_000_000
DIGITS = 5
MADE_OF = "made_of"  # by seed: columns of `Sums`, or what `Whole` has of what was measured as a whole
DAMAGE = (OSError, EOFError, lzma.LZMAError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

Text = Annotated[str, Field(max_length=2000)]
Plain = Annotated[dict[str, Any], Field(max_length=1000)]


class RecordedModel(Frozen):
    """A model that a recorded study was measured on. base: the key of its weights (`engine.models.identity`);
    experiment: one of its runs, which says what else the key stands for."""

    name: Text
    base: Text
    experiment: Plain

    def here(self) -> Here:
        """How the model is on this machine."""
        return how_here(self.base, Experiment.from_record(self.experiment))


class StudyRecording(Frozen):
    """A recorded study. study: its plan; seconds: of all its runs, and from the first's start to the last's end;
    environment: versions and hardware of its first run; figures: as `StudyFigure`, seeds without runs, and in
    newer ones `made_of` by seed, of which engine/execution/studies/pooling.py makes those of more seeds."""

    version: int
    study: Plain
    command: Text
    at: Text
    seconds: dict[str, float]
    environment: Plain
    runs: int
    models: Annotated[tuple[RecordedModel, ...], Field(min_length=1, max_length=100)]
    figures: Annotated[tuple[Plain, ...], Field(max_length=1_000_000)]

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study["name"])

    def figures_of(self, model: str) -> list[StudyFigure]:
        """The figures of one of its models."""
        found = map(figure_of, self.figures)
        return [figure for figure in found if figure.at.get(MODEL, model) == model]


def figure_of(data: Mapping[str, Any]) -> StudyFigure:
    """A recorded figure. Raises KeyError, TypeError or ValueError for what is none."""
    known = {name: value for name, value in data.items() if name != MADE_OF}
    return StudyFigure(**{**known, "seeds": {int(seed): own for seed, own in data["seeds"].items()}})


def record(db: Database, home: Path, study_id: str, out: Path, command: str = "") -> None:
    """Write a finished study; `command`: what measures the same, unless it is the usual one.

    Raises KeyError when there is none, ValueError while a run of it is not done or its answers are gone, OSError.
    """
    study, runs = get_study(db, study_id), list_study_runs(db, study_id)
    if unfinished := sum(run.state is not State.DONE for run in runs):
        raise ValueError(f"{unfinished} runs of {study_id} are not done: carry them out first")
    figures, behind = study_figures(db, home, study_id), facts_behind(db, home, study_id)
    if not figures:
        raise ValueError(f"the study {study_id} has no figures: its runs were deleted, or asked nothing")
    carried_out = [get_run(db, run.run) for run in runs]
    document = {
        "version": VERSION,
        "study": study.plan,
        "command": command or command_of(study),
        "at": max(run.finished_at or "" for run in carried_out),
        "seconds": _seconds(carried_out),
        "environment": carried_out[0].environment,
        "runs": len(runs),
        "models": _models(home, carried_out),
        "figures": [recorded_figure(f, *behind.get(group_of(f.at, SEED), ({}, {}))) for f in figures],
    }
    write_recording(StudyRecording.model_validate(document), out)


def write_recording(recording: StudyRecording, out: Path) -> None:
    """Write a recording as one small file. Raises OSError."""
    text = json.dumps(recording.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
    write_whole(out, lzma.compress(text.encode(), preset=9))


def command_of(study: StoredStudy) -> str:
    """What measures a study again elsewhere, where nobody knows its id."""
    if study.name not in STUDIES.names():
        return "python -m engine study FILE.yaml"
    preset = STUDIES.load(study.name).model_dump(mode="json")
    others = (field for field in preset if field not in ("name", "description", "axes"))
    if any(as_meant(study.plan.get(field) or None) != as_meant(preset[field] or None) for field in others):
        return "python -m engine study FILE.yaml"
    usual = preset["axes"]
    axes = [
        (path, values)
        for path, values in study.plan["axes"].items()
        if as_meant(values) != as_meant(usual.get(path, []))
    ]
    if [path for path, _ in axes] == [MODEL] and len(axes[0][1]) == 1:
        return shlex.join(["python", "-m", "engine", "study", study.name, "--model", str(axes[0][1][0])])
    told = [word for path, values in axes for word in ("--axis", f"{path}=[{', '.join(map(_in_yaml, values))}]")]
    return shlex.join(["python", "-m", "engine", "study", study.name, *told])


def _in_yaml(value: Any) -> str:
    """A value as `set_axis` reads it: JSON is YAML, and numbers need no quotes, whether they were read yet or not."""
    is_number = isinstance(value, str) and NUMBER.fullmatch(value)
    return value if is_number else json.dumps(value, ensure_ascii=False)


def _seconds(runs: list[Run]) -> dict[str, float]:
    spans = [(_at(run.started_at), _at(run.finished_at)) for run in runs if run.started_at and run.finished_at]
    if not spans:
        return {}
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"work": round(sum(end - start for start, end in spans), 1), "whole": round(whole, 1)}


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _models(home: Path, runs: list[Run]) -> list[dict[str, Any]]:
    """A run of each model. Raises ValueError where runs of one model stand on different weights."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        experiment = Experiment.from_record(run.experiment)
        base = base_of(run_folder(home, run.id), experiment)
        first = found.setdefault(run.model, {"name": run.model, "base": base, "experiment": run.experiment})
        if first["base"] != base and same_key(first["experiment"], run.experiment):
            raise ValueError(f"its runs stand on different weights of ‘{run.model}’: run the study again")
    return list(found.values())


def same_key(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two experiments differ in nothing that the key of their base stands for beside the weights."""

    def stands_for(experiment: dict[str, Any]) -> list[Any]:
        return [
            key_tokens_of(experiment),
            *(experiment.get(name) for name in ("precision", "model_text", "key_token_rows")),
        ]

    return stands_for(one) == stands_for(other)


def recorded_figure(
    figure: StudyFigure, sums: Mapping[Asked, Mapping[int, Sums]], whole: Mapping[Asked, Mapping[int, Whole]]
) -> dict[str, Any]:
    """As plain data; runs' ids mean nothing in another lab. sums, whole: what its group's figures are made of."""
    seeds = {seed: {k: _rounded(v) for k, v in own.items() if k != "run"} for seed, own in figure.seeds.items()}
    asked = (figure.depth, figure.kind, figure.facts, figure.split, figure.language)
    made_of: dict[int, Any] = {}
    if asked in sums:
        # Columns are shorter packed than rows: most hold the same number again and again.
        made_of = {
            seed: list(zip(*((*fact, *numbers) for fact, numbers in of_facts), strict=True))
            for seed, of_facts in sums[asked].items()
        }
    elif asked in whole:
        made_of = {seed: vars(of) for seed, of in whole[asked].items()}
    plain = {name: _rounded(value) for name, value in vars(figure).items()} | {"seeds": seeds}
    return plain | ({MADE_OF: made_of} if made_of else {})


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def read_recording(path: Path) -> StudyRecording:
    """A recording as it was written. Raises one of `DAMAGE` for what cannot be read."""
    unpacking = lzma.LZMADecompressor()
    text = unpacking.decompress(path.read_bytes(), max_length=MOST_BYTES)
    if not unpacking.eof:
        raise ValueError("it is cut off, or too large")
    recording = StudyRecording.model_validate_json(text)
    if recording.version != VERSION:
        raise ValueError("it is of another version of the lab")
    for model in recording.models:
        recording.figures_of(model.name)
    return recording


def shipped_recordings(folder: Path = SHIPPED) -> dict[str, StudyRecording]:
    """The recordings that come with the lab, by the names of their files; a damaged one is a sentence in the log."""
    found = {path.name.removesuffix(ENDING): _read(path) for path in sorted(folder.glob(f"*{ENDING}"))}
    return {name: recording for name, recording in found.items() if recording}


@lru_cache(maxsize=64)
def _read(path: Path) -> StudyRecording | None:
    try:
        return read_recording(path)
    except DAMAGE as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        logger.warning("The recording %s cannot be read and is left out (%s): install the lab again.", path, words)
        return None
