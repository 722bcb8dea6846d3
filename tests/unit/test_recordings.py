"""Recorded runs: written, put into another lab as they were, replaced, left out, deleted, and never acted upon."""

from __future__ import annotations

import json
import lzma
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from app.ask.form import default_run, form_html
from app.ask.view import View
from app.asking.columns import models_of
from app.asking.submit import ask_fact, put_to, run_to_ask
from app.attack.form import form_html as attack_form
from app.attack.view import View as AttackView
from app.runs.evidence import evidence_html, lines
from app.server.first_start import bring_recorded_runs
from app.shared.lab import Lab
from app.shared.recordings import here_of
from engine.attack.experiment import AttackExperiment
from engine.commands.main import main
from engine.corpus.resolve import resolve
from engine.execution.attacks.queue import queue_attack
from engine.execution.execute import execute_run
from engine.execution.recorded.record import command_of, record
from engine.execution.recorded.restore import ENDING, SHIPPED, restore, restore_all
from engine.execution.report import representations_of
from engine.experiment import Experiment
from engine.presets import load_preset
from engine.serving.asking.questions import AskError
from storage.answers import all_answers, evaluated_checkpoints, list_facts, list_prompts, open_answers
from storage.database import open_database
from storage.folders import run_folder
from storage.measurements import list_measurements, list_results
from storage.recordings import recorded_runs
from storage.runs import Run, add_run, claim_run, get_run, list_events, list_runs, request_stop, retry_run

SEEDS = (3, 4)


def small(seed: int) -> Experiment:
    """Seconds of work: few facts, one epoch, two languages."""
    data = load_preset("quick").model_dump(mode="json") | {"seed": seed, "name": "small evidence"}
    data["relations"][0] |= {"facts": {"generate": 6}}
    data["stage1"] |= {"epochs": 1, "checkpoint_epochs": [1]}
    data["evaluation"] |= {"languages": ["en", "ja"], "max_new_tokens": 6, "choice": {"facts": 3}, "general": 5}
    data["stage2"] |= {"epochs": 1, "facts": 3, "branch_epochs": None}
    return resolve(Experiment.from_data(data))


def queued(db: Database, experiment: Experiment) -> Run:
    return add_run(db, name=experiment.name, experiment=experiment.model_dump(mode="json"),
                   model=experiment.model, seed=experiment.seed)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A lab's folder with a run for each seed, really carried out, and their ids."""
    home = tmp_path_factory.mktemp("made")
    db = open_database(home)
    ids = []
    for seed in SEEDS:
        run = claim_run(db, "w", 600, queued(db, small(seed)).id)
        assert run is not None
        execute_run(db, home, run)
        ids.append(run.id)
    return home, ids


@pytest.fixture(scope="module")
def shipped(made: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with their recording."""
    home, ids = made
    folder = tmp_path_factory.mktemp("shipped")
    record(open_database(home), home, ids, folder / "small.json.xz", name="Small, two seeds")
    return folder


@pytest.fixture
def lab(tmp_path: Path, shipped: Path) -> Lab:
    """Another lab, into which it was brought."""
    lab = Lab(tmp_path)
    bring_recorded_runs(lab, shipped)
    return lab


def changed(shipped: Path, folder: Path, **changes: Any) -> Path:
    """The recording in another folder, with changes."""
    document = json.loads(lzma.decompress((shipped / "small.json.xz").read_bytes())) | changes
    (folder / "small.json.xz").write_bytes(lzma.compress(json.dumps(document).encode()))
    return folder


def stored(folder: Path) -> tuple[list[Any], ...]:
    """Everything in a run's answers, log-probabilities to the digits that a recording keeps."""
    with closing(open_answers(folder)) as db:
        answers = [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            for name in evaluated_checkpoints(db)
            for row in all_answers(db, name)
        ]
        return list_facts(db), list_prompts(db), evaluated_checkpoints(db), answers


def test_what_was_recorded_is_there_as_it_was_but_for_the_models(made: tuple[Path, list[str]], lab: Lab) -> None:
    home, ids = made
    was = open_database(home)
    runs = recorded_runs(lab.db)
    assert [run.seed for run in runs] == list(SEEDS)
    for run, before in zip(runs, (get_run(was, i) for i in ids), strict=True):
        for field in ("name", "experiment", "model", "headline", "environment", "started_at", "finished_at", "state"):
            assert getattr(run, field) == getattr(before, field), field
        assert list_results(lab.db, run.id) == list_results(was, before.id)
        assert stored(run_folder(lab.home, run.id)) == stored(run_folder(home, before.id))
        now, then = (representations_of(run_folder(h, r.id)) for h, r in ((lab.home, run), (home, before)))
        assert [replace(f, value=round(f.value, 4), low=None, high=None) for f in then] == [
            replace(f, low=None, high=None) for f in now
        ]
        assert {f.checkpoint for f in now} == {"base", "memorised@1", "generalised@1"}
        for series in ("loss", "probe"):
            points, before_points = (list_measurements(db, r.id, series) for db, r in ((lab.db, run), (was, before)))
            assert [p | {"value": round(p["value"], 5)} for p in before_points] == points
        told = [e["message"] for e in list_events(lab.db, run.id)]
        assert told[:-1] == [e["message"] for e in list_events(was, before.id)] and "small" in told[-1]
        assert run.recorded is not None and run.recorded["title"] == "Small, two seeds"
        seconds = run.recorded["seconds"]
        assert set(seconds) == {"total", "loading", "stage1", "stage2", "asking"}
        assert sum(v for k, v in seconds.items() if k != "total") == pytest.approx(seconds["total"], abs=1.0)
        assert here_of(run) == "same"
        assert not (run_folder(lab.home, run.id) / "checkpoints").exists()


def test_the_command_is_that_of_the_preset_or_of_the_file() -> None:
    quick = resolve(Experiment.from_data(load_preset("quick").model_dump() | {"seed": 7}))
    assert command_of(quick) == "rote-lab run quick --seed 7"
    assert command_of(small(7)) == "rote-lab run experiment.yaml"


def test_it_is_marked_and_nothing_acts_on_it(lab: Lab) -> None:
    (run, _) = recorded_runs(lab.db)
    assert all(r.recorded for r in list_runs(lab.db)) and list_runs(lab.db, made_here=True) == []
    assert claim_run(lab.db, "w", 60) is None and claim_run(lab.db, "w", 60, run.id) is None
    assert request_stop(lab.db, run.id) == "done"
    with pytest.raises(ValueError, match="a recording holds no model: run its experiment here first"):
        retry_run(lab.db, run.id)
    with pytest.raises(ValueError, match="a recording holds no model"):
        queue_attack(lab.db, AttackExperiment(run=run.id))
    assert models_of(lab, run).problem.startswith("a recording holds no model") and not models_of(lab, run).own
    assert default_run(lab) is None and lab.spotlight() is None
    assert "A recording holds no model" in form_html(lab, View(run=run.id))
    for ask in (lambda: ask_fact(lab, run_to_ask(lab, run.id), "x"), lambda: put_to(lab, "x", [f"{run.id}/base"])):
        with pytest.raises(AskError, match=r"A recording holds no model: .*\."):
            ask()
    mine = queued(lab.db, small(9))
    assert run.id not in attack_form(lab, AttackView(view="grid"))
    claimed = claim_run(lab.db, "w", 60)
    assert claimed is not None and claimed.id == mine.id


def test_the_command_line_says_what_it_is(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (run, other) = recorded_runs(lab.db)
    home, subject = ["--home", str(lab.home)], run.experiment["relations"][0]["facts"][0]["subject"]
    assert main(["runs", *home]) == 0 and capsys.readouterr().out.count("  recorded  ") == 2
    for command in (["retry", run.id], ["ask", run.id, "--subject", subject], ["serve", run.id],
                    ["record", run.id, other.id, "--to", str(lab.home / "again.json.xz")]):  # fmt: skip
        assert main([*command, *home]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "recording" in said, command
    assert main(["results", run.id, *home]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"]["recorded"]["base"] and document["rows"]


def test_what_was_deleted_stays_away_and_a_newer_file_takes_the_place(lab: Lab, shipped: Path, tmp_path: Path) -> None:
    first, second = recorded_runs(lab.db)
    lab.delete(first.id)
    assert not lab.folder(first.id).exists()
    bring_recorded_runs(lab, shipped)
    assert [r.id for r in recorded_runs(lab.db)] == [second.id]
    newer = tmp_path / "newer"
    newer.mkdir()
    assert restore_all(lab.db, lab.home, changed(shipped, newer, name="Small, again")) == ["small"]
    runs = recorded_runs(lab.db)
    assert [(r.seed, (r.recorded or {})["title"]) for r in runs] == [(seed, "Small, again") for seed in SEEDS]
    assert second.id not in {r.id for r in runs} and not lab.folder(second.id).exists()
    assert restore_all(lab.db, lab.home, newer) == []


@pytest.mark.parametrize("damage", ["cut off", "no archive", "no document", "another version", "a row", "an answer"])
def test_a_damaged_file_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, shipped: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, lab = tmp_path / "files", Lab(tmp_path / "lab")
    folder.mkdir()
    whole = (shipped / "small.json.xz").read_bytes()
    runs = json.loads(lzma.decompress(whole))["runs"]
    file = folder / "small.json.xz"
    if damage == "a row":
        runs[1]["rows"][0]["unknown"] = 1
    elif damage == "an answer":
        runs[1]["answers"]["base"][0].pop()
    changed(shipped, folder, runs=runs, **({"version": 99} if damage == "another version" else {}))
    if damage in ("cut off", "no archive", "no document"):
        file.write_bytes({"cut off": whole[:-40], "no archive": b"x", "no document": lzma.compress(b"[]")}[damage])
    (folder / "whole.json.xz").write_bytes(whole)
    assert restore_all(lab.db, lab.home, folder) == ["whole"]
    assert {(r.recorded or {})["file"] for r in recorded_runs(lab.db)} == {"whole"}
    assert len(list((lab.home / "runs").iterdir())) == len(SEEDS)
    (said,) = [r.getMessage() for r in caplog.records]
    assert "small.json.xz cannot be read and is left out" in said and "\n" not in said


def test_every_recording_that_comes_with_the_lab_can_be_taken_in(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    names = sorted(path.name.removesuffix(ENDING) for path in SHIPPED.glob(f"*{ENDING}"))
    assert restore_all(lab.db, tmp_path) == names
    assert sorted({(r.recorded or {})["file"] for r in recorded_runs(lab.db)}) == names


def test_a_model_that_is_not_here_or_has_other_weights_is_said(tmp_path: Path, shipped: Path) -> None:
    runs = json.loads(lzma.decompress((shipped / "small.json.xz").read_bytes()))["runs"]
    lab, folder = Lab(tmp_path / "lab"), tmp_path / "files"
    folder.mkdir()
    runs[0]["model"] = runs[0]["experiment"]["model"] = "/no/such/model"
    runs[1]["base"] = "0123456789ab"
    restore(lab.db, lab.home, changed(shipped, folder, runs=runs) / "small.json.xz")
    assert [here_of(run) for run in recorded_runs(lab.db)] == ["absent", "other"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"state": "failed"}, "only a run that is done"), ({"model": "another"}, "stand on different models")],
)
def test_what_cannot_be_recorded_is_refused(
    made: tuple[Path, list[str]], tmp_path: Path, change: dict[str, str], words: str
) -> None:
    home, ids = made
    db = open_database(home)
    before = get_run(db, ids[0])
    db.table("runs").update(ids[0], change)
    db.conn.commit()
    try:
        with pytest.raises(ValueError, match=words):
            record(db, home, ids, tmp_path / "x.json.xz")
    finally:
        db.table("runs").update(ids[0], {"state": before.state.value, "model": before.model})
        db.conn.commit()


def test_the_command_writes_what_a_lab_takes_in(
    made: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, ids = made
    to = tmp_path / "evidence.json.xz"
    assert main(["record", *ids, "--to", str(to), "--made-by", "do --seed {seed}", "--home", str(home)]) == 0
    assert "2 runs" in capsys.readouterr().out
    lab = Lab(tmp_path / "lab")
    assert restore(lab.db, lab.home, to)
    assert [(r.recorded or {})["command"] for r in recorded_runs(lab.db)] == ["do --seed 3", "do --seed 4"]
    assert main(["record", "nothing", "--to", str(to), "--home", str(home)]) == 2
    assert main(["record", *ids, "--to", str(tmp_path / "x.json"), "--home", str(home)]) == 2
    assert "ending" in capsys.readouterr().err


def test_the_first_page_has_a_card_with_every_seed(lab: Lab) -> None:
    runs = recorded_runs(lab.db)
    rows = {run.id: list_results(lab.db, run.id) for run in runs}
    (key, train, *_) = found = list(lines(runs, rows))
    assert (key.split, key.after) == ("key", None) and train.before and train.after
    assert [seed.seed for seed in train.after.seeds] == list(SEEDS)
    assert train.after.mean == pytest.approx(sum(s.row.value for s in train.after.seeds) / len(SEEDS))
    assert {line.language for line in found if line.split == "test"} == set(small(3).languages)
    page = evidence_html(lab)
    for run in runs:
        assert f"/results?run={run.id}&amp;checkpoint=generalised@1&amp;split=train&amp;language=en#answers" in page
    general = found[-1]
    assert {line.split for line in found[:-1]} == {"key", "train", "test", "unrelated", "decoy"}
    assert general.split == "general knowledge" and general.before and general.after and general.base
    assert general.n == 5 * len(SEEDS) and {s.row.checkpoint for s in general.base.seeds} == {"base"}
    assert page.count(f'href="/results?run={runs[0].id}#base-text"') == 2 + 2 and "base " in page
    assert "Recorded" in page and f"/design?clone={runs[0].id}" in page and "with these weights" in page
    for run in runs:
        lab.delete(run.id)
    assert evidence_html(lab) == ""
