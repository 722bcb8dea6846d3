"""Writing finished runs as a recording: one file with figures, curves, events and every answer; no models, and
of hidden states only the figures.

record(db, home, ["1a2b3c4d", …], Path("gemma.json.xz"))      # e.g. three seeds of one preset

The runs of one recording tell of the same experiment with several seeds. What is read back: engine/execution/recorded/
restore.py.
"""

from __future__ import annotations

import json
import lzma
import re
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.models.folders import whole, write_whole
from engine.models.identity import base_key, noted_base
from engine.presets import EXPERIMENTS, load_preset
from storage.answers import (
    ANSWER_COLUMNS,
    ANSWERS_NAME,
    all_answers,
    evaluated_checkpoints,
    evaluation_times,
    list_facts,
    list_prompts,
    open_answers,
)
from storage.checkpoints import CheckpointName
from storage.folders import checkpoint_folder, log_lines, run_folder
from storage.measurements import list_measurements, list_results
from storage.representations import FIGURE_FIELDS, RepresentationFigure, list_representations
from storage.runs import Run, State, get_run, list_events

VERSION = 1
SERIES = ("loss", "replay loss", "probe")
KEPT = ("id", "name", "model", "seed", "experiment", "environment", "headline", "created_at", "started_at",
        "finished_at")  # fmt: skip
MOST_POINTS = 2000
ROUNDED = ("log_probability", "log_probability_normalised")
DIGITS = 4
_ASKED = re.compile(r" INFO (\S+): \d+ questions in ([\d.]+) s$")


def record(db: Database, home: Path, run_ids: list[str], out: Path, *, name: str = "", command: str = "") -> None:
    """Write finished runs, the first one's name and the command that gives them unless others are given.

    Raises KeyError where there is no such run, ValueError for one that cannot be recorded, OSError.
    """
    runs = [get_run(db, run_id) for run_id in dict.fromkeys(run_ids)]
    for run in runs:
        _check(home, run)
    if len({run.model for run in runs}) > 1:
        raise ValueError("the runs stand on different models: record each model's in a file of its own")
    questions: dict[str, int] = {}
    document = {
        "version": VERSION,
        "name": name or runs[0].name,
        "runs": [_run(db, home, run, command, questions) for run in runs],
        "questions": [json.loads(row) for row in questions],
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    write_whole(out, lzma.compress(text.encode(), preset=9))


def _check(home: Path, run: Run) -> None:
    if run.recorded:
        raise ValueError(f"{run.id} is itself a recording: copy its file")
    if run.attack:
        raise ValueError(f"{run.id} is a part of an attack: record that as a whole, with `attack --record`")
    if run.state is not State.DONE:
        raise ValueError(f"{run.id} is {run.state.value}: only a run that is done can be recorded")
    if not (run_folder(home, run.id) / ANSWERS_NAME).is_file():
        raise ValueError(f"the answers of {run.id} are not there any more: carry it out again")


def _run(db: Database, home: Path, run: Run, command: str, questions: dict[str, int]) -> dict[str, Any]:
    """One run as plain data; facts and prompts are places among `questions`, which most runs share."""
    folder, experiment = run_folder(home, run.id), Experiment.from_record(run.experiment)

    def places(rows: list[dict[str, Any]]) -> list[int]:
        return [questions.setdefault(json.dumps(row, ensure_ascii=False), len(questions)) for row in rows]

    with closing(open_answers(folder)) as answers:
        asked = {
            "facts": places(list_facts(answers)),
            "prompts": places(list_prompts(answers)),
            "answers": {c: _columns(all_answers(answers, c)) for c in evaluated_checkpoints(answers)},
        }
        seconds = _seconds(run, folder, evaluation_times(answers))
        represented = [_rounded(figure) for figure in list_representations(answers)]
    return {
        **{field: getattr(run, field) for field in KEPT},
        "base": base_of(folder, experiment),
        "command": command.replace("{seed}", str(run.seed)) or command_of(experiment),
        "seconds": seconds,
        "events": [{k: e[k] for k in ("at", "kind", "message")} for e in list_events(db, run.id)],
        "series": {
            name: [{**p, "value": round(p["value"], 5)} for p in list_measurements(db, run.id, name, MOST_POINTS)]
            for name in SERIES
        },
        "rows": [vars(row) for row in list_results(db, run.id)],
        "representations": represented,
        **asked,
    }


def _rounded(figure: RepresentationFigure) -> list[Any]:
    """Its fields in their order."""
    values = (getattr(figure, name) for name in FIGURE_FIELDS)
    return [round(value, DIGITS) if isinstance(value, float) else value for value in values]


def base_of(folder: Path, experiment: Experiment) -> str:
    """The key of the weights that the run stands on: what its checkpoints noted, else today's."""
    kept = (checkpoint_folder(folder, name) for name in experiment.checkpoints[1:])
    return next(filter(None, (noted_base(whole(path) or path) for path in kept)), "") or base_key(experiment)


def _columns(answers: list[dict[str, Any]]) -> list[list[Any]]:
    """Answers by column, which packs into half of what rows take."""

    def value(name: str, given: Any) -> Any:
        return round(given, DIGITS) if name in ROUNDED and given is not None else given

    return [[value(name, answer[name]) for answer in answers] for name in ANSWER_COLUMNS]


def command_of(experiment: Experiment) -> str:
    """The command that gives the experiment: of its preset where it is one, else of the file that the page offers."""
    for name in EXPERIMENTS.names():
        if load_preset(name).name != experiment.name:
            continue
        preset = Experiment.from_data(load_preset(name).model_dump() | {"seed": experiment.seed})
        if resolve(preset).model_dump(mode="json") == experiment.model_dump(mode="json"):
            return f"rote-lab run {name} --seed {experiment.seed}"
    return "rote-lab run experiment.yaml"


def _seconds(run: Run, folder: Path, evaluated: dict[str, str]) -> dict[str, float]:
    """Wall seconds: `total`, and by part where the run was carried out in one go and its log tells.

    The parts: `loading`, `stage1`, `stage2` and `asking`, each over all checkpoints.
    """
    if not run.started_at or not run.finished_at:
        return {}
    total = {"total": round(_at(run.finished_at) - _at(run.started_at), 1)}
    asked = {m[1]: float(m[2]) for line in log_lines(folder / "log.txt") if (m := _ASKED.search(line))}
    if run.attempt != 1 or not evaluated or any(name not in asked for name in evaluated):
        return total
    parts = dict.fromkeys(("loading", "stage1", "stage2", "asking"), 0.0)
    before = _at(run.started_at)
    of = {"base": "loading", "memorised": "stage1", "generalised": "stage2"}
    for name, at in evaluated.items():
        parts[of[CheckpointName.parse(name).kind]] += max(0.0, _at(at) - asked[name] - before)
        parts["asking"] += asked[name]
        before = _at(at)
    return total | {name: round(seconds, 1) for name, seconds in parts.items()}


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
