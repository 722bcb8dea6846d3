"""An attack that was measured before, as one file: its cells and their rows, and the first seed's answers; no models.

The lab ships some, so that a newcomer's page has real figures at once. Each holds for the weights that it names; where
there are others it is not offered. Whoever wants the models too, to ask them live, measures it again.
"""

from __future__ import annotations

import json
import lzma
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.evaluation.answer import Answer
from engine.experiment import Experiment
from engine.models.folders import write_whole
from engine.models.identity import base_key, is_base, is_here
from storage.answers import (
    ANSWER_COLUMNS,
    all_answers,
    evaluated_checkpoints,
    list_facts,
    list_prompts,
    open_answers,
    store_answers,
    store_questions,
)
from storage.attacks import RESULT_FIELDS, add_recorded_attack, get_attack, list_attack_results, list_cells
from storage.folders import run_folder
from storage.runs import State, get_run

SHIPPED = Path(__file__).with_name("recorded")  # a file for each, NAME.json.xz; the last of them is told first
EMBEDDED_RECORDING = SHIPPED / "embedded.json.xz"
ROW = (*RESULT_FIELDS, "by_fact")


def record(db: Database, home: Path, attack_id: str, out: Path, command: str) -> None:
    """Write a finished attack, and the command that measured it.

    Raises KeyError when there is none, ValueError while a cell is not done.
    """
    attack, cells = get_attack(db, attack_id), list_cells(db, attack_id)
    if unfinished := [c for c in cells if c.state is not State.DONE]:
        raise ValueError(f"{len(unfinished)} cells of {attack_id} are not done: measure them first")
    first = attack.experiment["seeds"][0]
    rows: dict[str, list[list[Any]]] = {}
    for row in list_attack_results(db, attack_id):
        rows.setdefault(row["run"], []).append([row[name] for name in ROW])
    runs = {run.id: run for run in (get_run(db, c.run) for c in cells)}
    bases = {str(run.seed): run.experiment for run in runs.values()}
    experiment = {**attack.experiment, "run": None}
    document = {
        "base": base_key(Experiment.from_record(next(iter(bases.values())))),
        "recorded": {"at": attack.created_at, "command": command, "environment": runs[cells[0].run].environment},
        "name": attack.name,
        "experiment": experiment,
        "bases": bases,
        "cells": [
            {"cell": c.cell, "headline": c.headline, "rows": rows.get(c.run, []), "started_at": c.started_at,
             "finished_at": c.finished_at, **(_answers(run_folder(home, c.run)) if c.cell["seed"] == first else {})}
            for c in cells
        ],
    }  # fmt: skip
    _share_questions(document)
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    write_whole(out, lzma.compress(text.encode()))


def restore(db: Database, home: Path, source: Path) -> str | None:
    """Put a recorded attack into the lab; returns its id, or None where there is none for the weights that are here."""
    if not source.is_file():
        return None
    document = json.loads(lzma.decompress(source.read_bytes()))
    if not holds_here(document):
        return None
    bases = {int(seed): base for seed, base in document["bases"].items()}
    attack, runs = add_recorded_attack(
        db, name=document["name"], experiment=document["experiment"], recorded=document["recorded"],
        cells=[
            {**c, "base": bases[c["cell"]["seed"]], "results": [dict(zip(ROW, row, strict=True)) for row in c["rows"]]}
            for c in document["cells"]
        ],
    )  # fmt: skip
    for run, cell in zip(runs, document["cells"], strict=True):
        if "answers" in cell:
            _put_answers(run_folder(home, run), document["questions"], cell)
    return attack


def holds_here(document: dict[str, Any]) -> bool:
    """Whether the base has the weights that the attack was measured on, or is a known model that is not here."""
    experiment = Experiment.from_record(next(iter(document["bases"].values())))
    return not is_here(experiment) or is_base(document["base"], experiment, unread=True)


def _answers(folder: Path) -> dict[str, Any]:
    with closing(open_answers(folder)) as db:
        answers = {name: all_answers(db, name) for name in evaluated_checkpoints(db)}
        return {"facts": list_facts(db), "prompts": list_prompts(db), "answers": answers}


def _share_questions(document: dict[str, Any]) -> None:
    """Cells of one base run ask nearly the same: `questions` holds each fact and prompt once, cells their places."""
    known: dict[str, int] = {}
    for cell in (c for c in document["cells"] if "answers" in c):
        for name in ("facts", "prompts"):
            cell[name] = [known.setdefault(json.dumps(row, ensure_ascii=False), len(known)) for row in cell[name]]
        for checkpoint, answers in cell["answers"].items():
            rounded = ({**answer, "log_probability": round(answer["log_probability"], 4)} for answer in answers)
            cell["answers"][checkpoint] = [[answer[name] for name in ANSWER_COLUMNS] for answer in rounded]
    document["questions"] = [json.loads(row) for row in known]


def _put_answers(folder: Path, questions: list[dict[str, Any]], cell: dict[str, Any]) -> None:
    with closing(open_answers(folder)) as db:
        store_questions(db, [questions[i] for i in cell["facts"]], [questions[i] for i in cell["prompts"]])
        for checkpoint, answers in cell["answers"].items():
            store_answers(db, checkpoint, (Answer(**dict(zip(ANSWER_COLUMNS, a, strict=True))) for a in answers))
