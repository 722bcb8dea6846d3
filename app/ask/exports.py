"""Downloads of what was asked: one asking as CSV, a row for each answer, or as JSON with every token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response

from app.asking.columns import key_tokens_of
from app.shared.downloads import csv_file, text_file
from app.shared.lab import Lab
from engine.evaluation.hits import says_key_token
from storage.askings import QUESTION_FIELDS, get_asking, iterate_answers, list_columns, list_questions

FIELDS = (
    "asking", "asked_at", "run", "run_name", "model", "checkpoint", "relation", *QUESTION_FIELDS, "answer", "hit",
    "says_key_token", "probability", "log_probability", "rank", "options", "error", "backend", "temperature", "top_p",
    "seed", "max_tokens",
)  # fmt: skip
COLUMN_FIELDS = ("model", "run", "run_name", "checkpoint", "state", "error", "backend", "answered")


def add_asking_export_routes(site: FastAPI, lab: Lab) -> None:
    """Add `/export/asked/ID/answers.csv` and `.json`."""

    def known(asking: str) -> dict[str, Any]:
        try:
            return kept_document(lab, asking[:64])
        except KeyError:
            raise HTTPException(404, "There is no such question: the address may not be complete.") from None

    @site.get("/export/asked/{asking}/answers.csv")
    def answers_csv(asking: str) -> Response:
        document = known(asking)
        return csv_file(f"asked-{document['id']}.csv", FIELDS, rows_of(document))

    @site.get("/export/asked/{asking}/answers.json")
    def answers_json(asking: str) -> Response:
        document = known(asking)
        text = json.dumps(document, ensure_ascii=False, indent=1)
        return text_file(f"asked-{document['id']}.json", "application/json", text)


def kept_document(lab: Lab, asking_id: str) -> dict[str, Any]:
    """Everything kept of one asking as plain data: what was asked, of whom, and every answer with its tokens.

    Raises KeyError when there is none of that id.
    """
    asking = asdict(get_asking(lab.db, asking_id))
    questions = list_questions(lab.db, asking_id)
    objects = {question.number: question.object for question in questions}

    def judged(row: dict[str, Any]) -> dict[str, Any]:
        tokens = key_tokens_of(lab, asking["run"], row["model"])
        return row | {"says_key_token": says_key_token(row["answer"], objects[row["number"]], tokens)}

    asking["asked_at"] = asking.pop("created_at")
    return asking | {
        "models": [
            {field: getattr(column, field) for field in COLUMN_FIELDS} for column in list_columns(lab.db, asking_id)
        ],
        "questions": [
            {field: getattr(question, field) for field in ("number", *QUESTION_FIELDS)} for question in questions
        ],
        "answers": [judged(row) for row in iterate_answers(lab.db, asking_id)],
    }


def rows_of(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An asking's answers as rows of `FIELDS`."""
    questions = {q["number"]: q for q in document["questions"]}
    models = {m["model"]: m for m in document["models"]}
    for answer in document["answers"]:
        model = models[answer["model"]]
        yield {
            **document["settings"],
            **questions[answer["number"]],
            **answer,
            "asking": document["id"],
            **{name: document[name] for name in ("asked_at", "relation")},
            **{name: model[name] for name in ("run", "run_name", "checkpoint", "backend")},
        }
