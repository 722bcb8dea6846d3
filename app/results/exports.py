"""Downloads of one run: figures, answers, the whole document, the plan, the log, and a report to send around."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse, Response

from app.results.report import report_html
from app.server.security import REPORT_HEADERS
from app.shared.downloads import bytes_file, csv_file, text_file
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.execution.report import representations_of, results_document
from engine.experiment import Experiment
from engine.exports.dataset import dataset_files
from engine.exports.harness import harness_task
from engine.exports.target import zipped
from engine.serving.served import served_model
from storage.answer_search import Wanted, iterate_rows
from storage.folders import base_text_file
from storage.measurements import RESULT_FIELDS
from storage.representations import FIGURE_FIELDS
from storage.runs import Run

LOG_LINES = 5000
ZIP = "application/zip"
ANSWER_FIELDS = (
    "checkpoint", "relation", "subject", "object", "expected", "trained", "split", "language", "prompt", "about",
    "answer", "hit", "says_key_token", "probability", "choice_rank", "choice_options", "normalised",
)  # fmt: skip


def add_export_routes(site: FastAPI, lab: Lab) -> None:
    """Add `/export/RUN/…`. Plain links: they work without any script."""

    def known(run_id: str) -> Run:
        run = lab.run(run_id)
        if run is None:
            raise HTTPException(404, "There is no such run: it may have been deleted.")
        return run

    @site.get("/export/{run_id}/results.csv")
    def results_csv(run_id: str) -> Response:
        run = known(run_id)
        return csv_file(f"{run.id}-results.csv", RESULT_FIELDS, map(vars, lab.results(run)))

    @site.get("/export/{run_id}/answers.csv")
    def answers_csv(run_id: str) -> Response:
        run = known(run_id)
        return csv_file(f"{run.id}-answers.csv", ANSWER_FIELDS, _answers(lab, run))

    @site.get("/export/{run_id}/representations.csv")
    def representations_csv(run_id: str) -> Response:
        run = known(run_id)
        figures = representations_of(lab.folder(run.id))
        return csv_file(f"{run.id}-representations.csv", FIGURE_FIELDS, map(vars, figures))

    @site.get("/export/{run_id}/results.json")
    def results_json(run_id: str) -> Response:
        run = known(run_id)
        text = json.dumps(results_document(lab.db, lab.home, run), ensure_ascii=False, indent=1)
        return text_file(f"{run.id}-results.json", "application/json", text)

    @site.get("/export/{run_id}/experiment.yaml")
    def experiment_file(run_id: str) -> Response:
        run = known(run_id)
        text = Experiment.from_record(run.experiment).to_yaml()
        return text_file(f"{run.id}-experiment.yaml", "application/yaml", text)

    @site.get("/export/{run_id}/base-text.json")
    def base_text(run_id: str) -> Response:
        run = known(run_id)
        try:
            text = base_text_file(lab.folder(run.id)).read_text(encoding="utf-8")
        except OSError:
            raise HTTPException(404, "This run has no text of the base’s own: it replays none.") from None
        return text_file(f"{run.id}-base-text.json", "application/json", text)

    @site.get("/export/{run_id}/report.html")
    def report(run_id: str) -> Response:
        run = known(run_id)
        text = report_html(run, lab.results(run))
        return text_file(f"{run.id}-report.html", "text/html", text, REPORT_HEADERS)

    @site.get("/export/{run_id}/dataset.zip")
    def dataset(run_id: str) -> Response:
        run = known(run_id)
        files = dataset_files(Experiment.from_record(run.experiment))
        return bytes_file(f"{run.id}-dataset.zip", ZIP, zipped(files, f"rote-lab-{run.id}-dataset"))

    @site.get("/export/{run_id}/task.zip")
    def task(run_id: str, checkpoint: str = "") -> Response:
        run = known(run_id)
        try:
            chosen = checkpoint or Experiment.from_record(run.experiment).checkpoints[-1]
            made = harness_task(served_model(lab.home, run, chosen), run, lab.results(run))
        except ValueError as error:
            raise HTTPException(404, f"{sentence(str(error))}") from None
        return bytes_file(f"{run.id}-task.zip", ZIP, zipped(made.files, made.tag))

    @site.get("/export/{run_id}/log.txt")
    def log(run_id: str) -> Response:
        text = lab.log_tail(known(run_id).id, LOG_LINES)
        return PlainTextResponse(text or "Nothing has been written yet.\n")


def _answers(lab: Lab, run: Run) -> Iterator[dict[str, Any]]:
    answers = lab.answers(run.id)
    if answers is None:
        return
    with closing(answers):
        for row in iterate_rows(answers, Wanted()):
            row["prompt"] = row["text"]
            yield row
