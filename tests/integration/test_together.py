"""A run whose model two processes train together (FSDP2, gloo): its curve, its end after a kill, its errors."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.commands.mistake import Mistake
from engine.execution import saving
from engine.execution.execute import execute_run
from engine.execution.failures import PlainError
from engine.execution.progress import Progress
from engine.execution.stage_training import StageTraining
from engine.execution.together import train_together
from engine.experiment import Experiment
from engine.training.sequences import TrainingSequence
from storage.folders import checkpoint_folder, resume_folder, run_folder
from storage.measurements import list_measurements
from storage.runs import State, claim_run, list_events, request_stop, retry_run
from tests.integration.lab import SMALL, Lab, wait_until
from tests.integration.measures import files_of

# Two kept epochs, so that one of them is written in the middle.
TOGETHER = [*SMALL, "devices=2", "stage1.checkpoint_epochs=[3, 6]", "stage2.branch_epochs=[6]"]


def carry_out(lab: Lab, overrides: list[str], seed: int = 1) -> Any:
    lab.queue(overrides, seed)
    run = claim_run(lab.db, "me", 600)
    assert run is not None
    execute_run(lab.db, lab.home, run)
    return lab.run(run.id)


def curve(lab: Lab, run: str) -> dict[tuple[str, int], float]:
    """The loss by stage and step; of steps that were taken again the last one."""
    return {(p["stage"], p["step"]): p["value"] for p in list_measurements(lab.db, run, "loss")}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Any:
    run = carry_out(lab, TOGETHER)
    assert run.state is State.DONE, run.error
    return run


def test_the_curve_is_that_of_one_process(lab: Lab, undisturbed: Any) -> None:
    alone = carry_out(lab, [*TOGETHER, "devices=1"])
    assert alone.state is State.DONE
    ours, theirs = curve(lab, undisturbed.id), curve(lab, alone.id)
    assert len(ours) > 20 and ours == pytest.approx(theirs, abs=2e-4)
    mine, other = (run_folder(lab.home, r.id) for r in (undisturbed, alone))
    for name in ("memorised@3", "generalised@6"):
        kept = files_of(checkpoint_folder(mine, name))
        assert kept == files_of(checkpoint_folder(other, name)) - {"training/optimizer.safetensors"}
    assert not resume_folder(mine, "stage1").exists(), "what nothing goes on from is deleted"


def test_killed_then_cancelled_it_ends_as_the_undisturbed_one(
    lab: Lab, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "RESUME_EVERY_SECONDS", 0)
    monkeypatch.setattr(saving, "RESUME_SHARE", 1.0)
    tell = StageTraining.on_step
    killed: list[int] = []

    def disturb(training: StageTraining, report: Any) -> None:
        tell(training, report)
        if not killed and report.step == 9:
            ranks = [p for p in psutil.Process().children(recursive=True) if "--launch" not in p.cmdline()]
            killed.append(next(p.pid for p in ranks if "engine.execution.together_process" in p.cmdline()))
            os.kill(killed[0], signal.SIGKILL)
        if training.stage == "stage1" and report.step == 17:
            request_stop(lab.db, training.folder.name)
            training.progress.advance(0, force=True)

    with monkeypatch.context() as patched:
        patched.setattr(StageTraining, "on_step", disturb)
        run = carry_out(lab, TOGETHER)
    assert run.state is State.CANCELLED and lab.leftovers() == []
    assert killed and [e["kind"] for e in list_events(lab.db, run.id)].count("interrupted") == 1
    retry_run(lab.db, run.id)
    again = claim_run(lab.db, "me", 600)
    assert again is not None
    execute_run(lab.db, lab.home, again)
    assert lab.run(run.id).state is State.DONE
    assert any(e["kind"] == "resumed" for e in list_events(lab.db, run.id))
    assert curve(lab, run.id) == curve(lab, undisturbed.id)
    assert lab.outcome(run.id)[1] == lab.outcome(undisturbed.id)[1]


def test_no_process_outlives_a_killed_worker(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    try:
        run = lab.queue(
            [*TOGETHER, "stage1.epochs=400", "stage1.checkpoint_epochs=[400]", "stage2.branch_epochs=[400]"]
        )
        worker = lab.worker()
        wait_until(lambda: lab.run(run.id).progress.get("step", 0) > 3, "steps of the training")
        assert sum("together_process" in line for line in lab.leftovers()) == 3, "torchrun and two that train"
        worker.kill()
        wait_until(lambda: not lab.leftovers(), "the end of all processes")
    finally:
        lab.close()


def test_an_error_in_one_process_is_said_and_ends_all(lab: Lab) -> None:
    """Here the first one's, which finds no place to write to."""
    run = lab.queue(TOGETHER, seed=2)
    folder = run_folder(lab.home, run.id)
    folder.mkdir(parents=True)
    sequences, nowhere = [TrainingSequence([1, 2], [1, 2])] * 30, Path("/proc/none/memorised@1")
    experiment, progress = Experiment.from_record(run.experiment), Progress(0, lambda state: None)
    training = StageTraining(experiment, folder, "stage1", "Memorising", sequences, {1: nowhere}, lab.db, [], progress)
    with pytest.raises(PlainError, match="/proc/none"):
        train_together(training, None, None, gpus=(), mixed=False)
    assert lab.leftovers() == []


@pytest.mark.parametrize("change", ["tuning={method: lora}", "stage1.replay={}"])
def test_what_needs_one_device_is_refused_before(lab: Lab, change: str) -> None:
    with pytest.raises(Mistake, match="set devices to 1"):
        lab.queue([*TOGETHER, change])
