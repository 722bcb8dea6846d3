"""A small study by real workers: what its runs share is what each would have computed, also when they are killed."""

from __future__ import annotations

import lzma
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.backup.bundle import make_bundle, open_bundle
from engine.commands.main import main
from engine.execution.studies.queue import queue_study, widen_study
from engine.execution.studies.recording import read_recording
from engine.execution.studies.report import compare_figures, study_figures
from engine.experiment import Experiment
from engine.models.identity import base_key
from engine.studies.study import DEPTH, Study
from storage.folders import run_folder
from storage.measurements import list_results
from storage.runs import State, add_run, get_run, list_events, retry_run
from storage.studies import list_study_runs, study_counts
from tests.integration.lab import Lab, wait_until

PLAN: dict[str, Any] = {
    "name": "small",
    "experiment": {
        "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 20}}],
        "stage1": {"epochs": 3},
        "stage2": {"facts": 5},
        "evaluation": {
            "languages": ["en"],
            "prompts": 2,
            "choice": {"facts": 4, "prompts": 1},
            "max_new_tokens": 8,
            "general": 5,
        },
    },
    "axes": {DEPTH: [2, 3], "stage2.facts": [2, 6]},
}


def outcomes(lab: Lab, study: str) -> list[Any]:
    """Of every run of a study, in its order."""
    return [(run.at, lab.outcome(run.run)) for run in list_study_runs(lab.db, study)]


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    lab = Lab(tmp_path_factory.mktemp("peaceful"))
    study = queue_study(lab.db, Study.from_data(PLAN))
    assert lab.worker("--once").wait() == 0
    assert study_counts(lab.db, study) == {"done": 2}, [run.error for run in list_study_runs(lab.db, study)]
    yield lab, study
    lab.close()


def test_what_is_shared_is_what_a_run_by_itself_computes(peaceful: tuple[Lab, str]) -> None:
    lab, study = peaceful
    first, *others = list_study_runs(lab.db, study)
    assert "shared" not in {event["kind"] for event in list_events(lab.db, first.run)}
    for other in others:
        assert "shared" in {event["kind"] for event in list_events(lab.db, other.run)}
    last = get_run(lab.db, others[-1].run)
    alone = add_run(lab.db, name="alone", experiment=last.experiment, model=last.model, seed=last.seed)
    assert lab.worker("--once").wait() == 0
    assert get_run(lab.db, alone.id).state is State.DONE
    (_, mine), (_, theirs) = lab.outcome(alone.id), lab.outcome(last.id)
    assert mine.keys() == theirs.keys()
    # What was copied of the checkpoints that they share, and what was measured, is what the run by itself measured.
    for what in ("figures of hidden states", "pictured"):
        assert mine.pop(what) == theirs.pop(what) != []
    for checkpoint, answers in mine.items():
        for one, other in zip(answers, theirs[checkpoint], strict=True):
            # Questions asked beside others are batched otherwise, so that sums are rounded otherwise.
            assert other == {k: pytest.approx(v, abs=1e-4) if "log" in k else v for k, v in one.items()}
    log = (run_folder(lab.home, last.id) / "log.txt").read_text()
    assert "stage1: kept epoch" not in log and "stage2@3: kept epoch" in log
    assert re.findall(r"(\S+): hidden states in", log) == ["generalised@2", "generalised@3"]


def test_a_recording_has_every_figure_of_the_study_and_the_weights_it_stands_on(
    peaceful: tuple[Lab, str], tmp_path: Path
) -> None:
    lab, study = peaceful
    out = tmp_path / "small.json.xz"
    assert main(["study", study, "--home", str(lab.home), "--record", str(out)]) == 0
    recording = read_recording(out)
    (model,) = recording.models
    first = get_run(lab.db, list_study_runs(lab.db, study)[0].run)
    assert (model.name, model.base) == ("embedded", base_key(Experiment.from_record(first.experiment)))
    assert model.here() == "same" and recording.command == "python -m engine study FILE.yaml"
    assert (recording.name, recording.runs, recording.environment) == ("small", 2, first.environment)
    mine = {str((f.at, f.depth, f.kind, f.facts, f.split)): f for f in study_figures(lab.db, lab.home, study)}
    theirs = {str((f.at, f.depth, f.kind, f.facts, f.split)): f for f in recording.figures_of("embedded")}
    assert mine.keys() == theirs.keys() and len(mine) > 20
    for key, figure in mine.items():
        assert (theirs[key].n, theirs[key].n_facts) == (figure.n, figure.n_facts)
        for name in ("value", "low", "high", "unaided"):
            assert getattr(theirs[key], name) == pytest.approx(getattr(figure, name), abs=1e-5)
        assert theirs[key].seeds == {
            s: {"value": pytest.approx(own["value"], abs=1e-5)} for s, own in figure.seeds.items()
        }
    assert socket.gethostname() not in lzma.decompress(out.read_bytes()).decode()


def test_it_moves_to_another_lab_as_a_whole_and_a_run_of_it_alone(
    peaceful: tuple[Lab, str], lab: Lab, tmp_path: Path
) -> None:
    first, study = peaceful
    figures = study_figures(first.db, first.home, study)
    make_bundle(first.home, study, tmp_path / "study.tar")
    assert len(open_bundle(tmp_path / "study.tar", lab.home).new) == 2
    assert outcomes(lab, study) == outcomes(first, study)
    assert study_figures(lab.db, lab.home, study) == figures
    memorised = [lab.home / "runs" / run.run / "checkpoints/memorised@2/model.safetensors" for run in
                 list_study_runs(lab.db, study)]  # fmt: skip
    assert memorised[0].samefile(memorised[1]), "what they share is there once"

    last = list_study_runs(first.db, study)[-1].run
    make_bundle(first.home, last, tmp_path / "run.tar")
    open_bundle(tmp_path / "run.tar", tmp_path / "third")
    third = Lab(tmp_path / "third")
    assert third.outcome(last) == first.outcome(last)
    assert third.run(last).study is None
    assert main(["study", study, "--home", str(third.home)]) == 2, "the study is not there"
    assert list_study_runs(first.db, study) == list_study_runs(lab.db, study), "where they came from nothing changed"


def test_killed_again_and_again_it_ends_with_the_same_numbers(lab: Lab, peaceful: tuple[Lab, str]) -> None:
    study = queue_study(lab.db, Study.from_data(PLAN | {"keep": "none"}))
    for done in (0, 0, 1, 1, 1):
        kill_after(lab, study, done)
    assert lab.worker("--once").wait() == 0
    assert study_counts(lab.db, study) == {"done": 2}
    assert outcomes(lab, study) == outcomes(*peaceful)
    models = [len(list((run_folder(of.home, run.run) / "checkpoints").iterdir()))
              for of, name in ((lab, study), peaceful) for run in list_study_runs(of.db, name)]  # fmt: skip
    assert models == [0, 0, 4, 4], "those that were not to be kept are gone, when no run goes on from them"


def kill_after(lab: Lab, study: str, done: int) -> None:
    """Kill a worker, and the training under it, once so many runs are done."""
    worker = lab.worker()
    wait_until(lambda: study_counts(lab.db, study).get("done", 0) >= done, f"{done} runs")
    training = wait_until(lambda: lab.training_process(worker), "the training process")
    training.kill()
    worker.kill()
    worker.wait()


def test_made_wider_it_computes_what_is_new_and_pools_its_seeds(peaceful: tuple[Lab, str]) -> None:
    lab, study = peaceful
    before = {run.run: run.finished_at for run in list_study_runs(lab.db, study)}
    axes = PLAN["axes"] | {"seed": [0, 1], "stage2.facts": [2]}
    with pytest.raises(ValueError, match="1 run would no longer be part of it"):
        widen_study(lab.db, study, Study.from_data(PLAN | {"axes": axes}))
    wider = Study.from_data(PLAN | {"axes": PLAN["axes"] | {"seed": [0, 1]}})
    assert widen_study(lab.db, study, wider) == 2
    assert lab.worker("--once").wait() == 0
    after = {run.run: run.finished_at for run in list_study_runs(lab.db, study)}
    assert len(after) == 4 and before.items() <= after.items()
    figures = study_figures(lab.db, lab.home, study)
    wanted = ({"stage2.facts": 6}, 3, "generalised", "held_out", "test")
    (found,) = [f for f in figures if (f.at, f.depth, f.kind, f.facts, f.split) == wanted]
    assert figures == study_figures(lab.db, lab.home, study)
    assert {f.value for f in figures if f.kind == "base" and f.split == "key"} == {0.0}
    assert set(found.seeds) == {0, 1} and found.n == 2 * 2 * 14 and found.n_facts == 28
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(sum(seed["value"] for seed in found.seeds.values()) / 2)
    (fewer,) = [f for f in figures if (f.at, f.depth, f.kind, f.facts, f.split) == ({"stage2.facts": 2}, *wanted[1:])]
    assert fewer.n_facts == 36
    (compared,) = compare_figures(lab.db, lab.home, fewer, [found])
    assert compared is not None and compared.n_facts == 28, "only of facts that neither showed in words"
    assert -1 <= compared.low <= compared.value <= compared.high <= 1 and compared.p_holm == compared.p
    assert {seed["run"] for seed in found.seeds.values()} <= set(after)


def test_methods_are_runs_like_any_other(lab: Lab) -> None:
    """Fine-tuning on every fact in words, the facts in the prompt, and no key token, beside the paper's method."""
    taught = {"stage1.epochs": 0, "stage2.facts": 20, "stage2.prompts": 2, "stage2.epochs": 3}
    methods = {
        "rote": {},
        "bare": {f"relations.{i}.key_template": "{subject} {object}." for i in (0, 1)},
        "taught": taught,
        "in context": {"stage1.epochs": 0, "in_context.distractors": 2},
    }
    asked = {"prompts": "corpus with reasoning"}
    relations = [
        {"name": "mother", "key_token": "[X]", "facts": {"generate": 20}, **asked},
        {"name": "educated_at", "key_token": "[Y]", "facts": {"generate": 20, "subjects_of": "mother"}, **asked},
    ]
    base = PLAN["experiment"] | {"relations": relations, "stage1": {"epochs": 2, "checkpoint_epochs": [2]}}
    base["evaluation"] = base["evaluation"] | {"base_text": 3}
    study = queue_study(lab.db, Study.from_data({"experiment": base, "methods": methods}))
    assert lab.worker("--once").wait() == 0
    runs = {run.at["method"]: run for run in list_study_runs(lab.db, study)}
    assert {run.state for run in runs.values()} == {State.DONE}, [run.error for run in runs.values()]
    rows = {name: list_results(lab.db, run.run) for name, run in runs.items()}
    assert {row.checkpoint for row in rows["taught"]} == {"base", "generalised@0"}
    assert {row.facts for row in rows["taught"]} == {"trained", "none"}, "of what the base knew it is no fact"
    assert {row.checkpoint for row in rows["in context"]} == {"base", "context@0"}
    probability = {
        r.checkpoint: r.value for r in rows["taught"] if (r.split, r.metric) == ("train", "object_probability")
    }
    assert probability["generalised@0"] > probability["base"]
    figures = study_figures(lab.db, lab.home, study)
    tokens = {f.at["method"]: f.value for f in figures if f.split == "training_tokens" and f.kind != "memorised"}
    # [subject of two words, key token, object of two words, full stop]; the prompts are the corpus's first two.
    assert tokens["in context"] == 0 and tokens["rote"] - tokens["bare"] == 2, "a key token a fact and epoch"
    assert tokens["taught"] > tokens["rote"]
    test = {f.at["method"]: f for f in figures if (f.kind, f.split, f.facts) == ("generalised", "test", "all")}
    assert test.keys() == {"rote", "bare", "taught"} and {f.n_facts for f in test.values()} == {40}
    (compared,) = compare_figures(lab.db, lab.home, test["rote"], [test["taught"]])
    assert compared is not None and compared.n_facts == 40, "held out there and trained here are the same facts"
    ends = {(f.at["method"], f.split): f for f in figures if f.facts == "all" and f.kind in ("generalised", "context")}
    for method in methods:
        reversal, two_hop = ends[method, "reversal"], ends[method, "two_hop"]
        assert (reversal.n, reversal.n_facts, two_hop.n, two_hop.n_facts) == (80, 40, 40, 20), "at every method's end"
        choice, hop_choice = ends[method, "reversal choice"], ends[method, "two_hop choice"]
        assert choice.chance == pytest.approx(1 / 20) and hop_choice.chance == pytest.approx(1 / 100)
        assert choice.n == 2 * 4 and 0 < hop_choice.n <= 4 and ends[method, "reversal"].chance is None
    (compared,) = compare_figures(
        lab.db, lab.home, ends["rote", "reversal choice"], [ends["taught", "reversal choice"]]
    )
    assert compared is not None and compared.n_facts == 4, "those that both chose about"
    looked = {f.kind: f for f in figures if f.at["method"] == "rote" and f.split == "delta_cosine natural"}
    assert looked.keys() == {"base", "memorised", "generalised"}, "how relations lie apart, at each of its checkpoints"
    assert looked["base"].n_facts == 40 and looked["base"].low < looked["base"].value < looked["base"].high
    known = {(f.at["method"], f.kind, f.split): f for f in figures if f.facts == "none"}
    for method in ("rote", "taught"):
        general, said = (known[method, "generalised", split] for split in ("general knowledge", "base text"))
        assert (general.n, general.n_facts, said.n_facts) == (5, 5, 3) and general.language == said.language == "en"
        (row,) = (
            r for r in rows[method] if r.metric == "base_text_agreement" and r.checkpoint.startswith("generalised")
        )
        assert (said.value, said.low, said.high, said.n) == (row.value, row.low, row.high, row.n)
    assert known["rote", "base", "base text"].value == 1 > known["taught", "generalised", "base text"].value
    again = lab.outcome(runs["taught"].run)
    retry_run(lab.db, runs["taught"].run)
    assert lab.worker("--once").wait() == 0
    assert lab.outcome(runs["taught"].run) == again, "what is there is not made again"
