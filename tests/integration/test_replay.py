"""A run with replay on the embedded base, from the base's own text to the page, and killed in the middle of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.results.base_text import base_text_html
from app.results.exports import add_export_routes
from app.results.figures import Figures
from app.results.report import report_html
from app.runs.detail import base_text_html as texts_html
from app.runs.live import curves
from app.shared.departures import otherwise_trained
from app.shared.lab import Lab as PageLab
from engine.attack.experiment import AttackExperiment
from engine.attack.resolve import resolve_attack
from engine.execution import saving
from engine.execution.attacks.queue import queue_attack
from engine.experiment import Experiment
from engine.training.loop import Trainer, train
from storage.attacks import list_cells
from storage.folders import base_text_file, run_folder
from storage.measurements import list_measurements, list_results
from storage.runs import Run, State, retry_run
from tests.integration.lab import Lab
from tests.integration.test_damage import carry_out

SMALL = [
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 12}}]",
    "stage1={epochs: 4, checkpoint_epochs: [2, 4], replay: {share: 0.4, texts: 40, tokens: 6}}",
    "stage2={facts: 4, batch_size: 2, branch_epochs: [4], replay: {texts: 40, tokens: 6}}",
    "evaluation={languages: [en, ja], choice: {facts: 2}, max_new_tokens: 2, probe_facts: 0, base_text: 8, general: 6}",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Run]:
    lab = Lab(tmp_path_factory.mktemp("replay"))
    run = carry_out(lab, lab.queue(SMALL).id)
    assert run.state is State.DONE, run.error
    return lab, run


def test_a_run_with_replay_says_what_it_replayed_and_what_the_base_knew(finished: tuple[Lab, Run]) -> None:
    lab, run = finished
    record = json.loads(base_text_file(run_folder(lab.home, run.id)).read_text())
    assert record["uses"]["stage1"] == record["uses"]["stage2"] and len(record["sets"]) == 2
    assert [record["uses"][use]["asked"] for use in ("stage1", "held_out")] == [40, 8]
    facts, beside = (list_measurements(lab.db, run.id, series) for series in ("loss", "replay loss"))
    assert [(p["stage"], p["step"]) for p in facts] == [(p["stage"], p["step"]) for p in beside]
    assert {p["stage"] for p in beside} == {"stage1", "stage2@4"} and run.progress["fraction"] == 1
    rows = [r for r in list_results(lab.db, run.id) if r.split == "base text"]
    assert {r.checkpoint for r in rows} == {"base", "memorised@2", "memorised@4", "generalised@4"}
    assert {r.language for r in rows} == {"en", "ja"} and len(rows) == 4 * 2 * 2
    said = {(r.checkpoint, r.language): r.value for r in rows if r.metric == "base_text_agreement"}
    assert said["base", "en"] == said["base", "ja"] == 1 and all(0 <= value <= 1 for value in said.values())

    general = {r.checkpoint: r for r in list_results(lab.db, run.id) if r.metric == "general_accuracy"}
    assert set(general) == {r.checkpoint for r in rows} and {r.n for r in general.values()} == {6}
    assert general["base"].value >= 0.5 and general["base"].low < general["base"].value <= general["base"].high

    page = PageLab(lab.home)
    shown = texts_html(page, run)
    assert "40 texts for stage 1 and stage 2" in shown and "8 texts for comparison" in shown and "Japanese" in shown
    figures = Figures(run, list_results(lab.db, run.id))
    table = base_text_html(figures)
    assert table.count("Still said") == 1 + 2 and "Perplexity" in table and "base model" in table
    assert table.count("General questions") == 2 and "6 questions" in table
    assert "generation_accuracy" in figures.metrics
    assert not [m for m in figures.metrics if "base_text" in m or "general" in m]
    otherwise = otherwise_trained(figures.run.experiment)
    assert "stage 1 (40\u00a0% of each batch) and stage 2 (50\u00a0% of each batch)" in otherwise
    assert otherwise in (report := report_html(run, figures.rows)) and "What the base knew" in report
    loss, _ = curves(page, run)
    assert loss is not None and {row["stage"] for row in loss["data"]["rows"]} >= {"Replayed text"}
    site = FastAPI()
    add_export_routes(site, page)
    with TestClient(site) as client:
        assert client.get(f"/export/{run.id}/base-text.json").json() == record
        exported = Experiment.from_text(client.get(f"/export/{run.id}/experiment.yaml").text)
    assert exported == Experiment.from_record(run.experiment) and exported.stage1.replay is not None


@pytest.mark.parametrize("killed_at", [("stage1", 7), ("stage2@4", 1)], ids=["stage 1", "stage 2"])
def test_a_run_killed_in_the_middle_of_a_stage_ends_with_the_same(
    finished: tuple[Lab, Run], killed_at: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, run = finished
    expected = lab.outcome(run.id)
    again = lab.queue(SMALL)
    step = Trainer._train_step
    monkeypatch.setattr(saving, "RESUME_EVERY_SECONDS", 0)

    def killed(self, batch, rate):
        if (self.stage, self.step) == killed_at:
            raise RuntimeError("killed")
        return step(self, batch, rate)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", killed)
        assert carry_out(lab, again.id).state is State.FAILED
    # What is shared may be deleted meanwhile: the run has its own.
    shutil.rmtree(lab.home / "base_text")
    assert retry_run(lab.db, again.id) is State.QUEUED
    ended = carry_out(lab, again.id)
    assert ended.state is State.DONE, ended.error
    assert lab.outcome(again.id) == expected
    for series in ("loss", "replay loss"):  # points that were not written yet when it was killed are no more
        points = list_measurements(lab.db, again.id, series)
        assert len(points) > 5 and all(point in list_measurements(lab.db, run.id, series) for point in points)
    assert not (lab.home / "base_text").exists()


def test_an_attack_may_replay_what_the_run_replayed(finished: tuple[Lab, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    lab, run = finished
    asked: dict[str, Any] = {
        "run": run.id,
        "facts": [2],
        "controls": [],
        "prompts": [1],
        "epochs": [1],
        "seeds": [1],
        "keep": "none",
    }
    asked |= {"ask": 1, "ask_facts": 5, "max_new_tokens": 2, "replay": "as stage 2"}
    seen = []

    def noted(*arguments: Any, **options: Any) -> None:
        seen.append(options["replay"])
        train(*arguments, **options)

    monkeypatch.setattr("engine.execution.attacks.cell.train", noted)
    attack = queue_attack(lab.db, AttackExperiment.from_data(asked))
    (cell,) = list_cells(lab.db, attack)
    assert carry_out(lab, cell.run).state is State.DONE
    record = json.loads(base_text_file(run_folder(lab.home, run.id)).read_text())
    assert len(seen[0].sequences) == record["uses"]["stage2"]["used"] and seen[0].share == 0.5
    base_text_file(run_folder(lab.home, run.id)).rename(lab.home / "aside.json")
    shutil.rmtree(lab.home / "base_text", ignore_errors=True)
    retry_run(lab.db, cell.run)
    assert "is not in its folder: attack without replay" in (carry_out(lab, cell.run).error or "")
    (lab.home / "aside.json").rename(base_text_file(run_folder(lab.home, run.id)))
    plain = Experiment.from_record(run.experiment | {"stage2": {**run.experiment["stage2"], "replay": None}})
    with pytest.raises(ValueError, match="stage 2 replays nothing"):
        resolve_attack(AttackExperiment.from_data(asked), plain)


def test_a_run_without_replay_has_nothing_of_it(finished: tuple[Lab, Run]) -> None:
    lab, run = finished
    plain = replace(run, experiment=run.experiment | {"stage1": {}, "stage2": {"replay": None}}, id="0")
    figures = Figures(plain, [])
    assert otherwise_trained(figures.run.experiment) == "" and base_text_html(figures).strip() == ""
    assert texts_html(PageLab(lab.home), plain).strip() == ""
