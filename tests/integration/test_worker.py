"""The worker: killed, stopped and fed with bad runs; what must hold is what the person sees afterwards."""

from __future__ import annotations

import shutil
import signal

import psutil
import pytest

from engine.commands.mistake import Mistake
from engine.models.source import EMBEDDED_WEIGHTS
from storage.deletion import delete_run
from storage.runs import State, list_events, request_stop, retry_run
from tests.integration.lab import SMALL, Lab, wait_until


def test_workers_killed_one_after_the_other_lose_nothing(lab: Lab, undisturbed: tuple[Lab, str]) -> None:
    run = lab.queue(SMALL)
    for fraction in (0.05, 0.4, 0.65):
        worker = lab.worker()
        lab.wait_for_fraction(run.id, fraction)
        training = lab.training_process(worker)
        worker.kill()
        worker.wait()
        if training is not None:
            psutil.wait_procs([training], timeout=10)
            assert not training.is_running(), "the training process outlived its worker"
    second = lab.worker("--once")
    assert second.wait() == 0
    assert lab.run(run.id).state is State.DONE
    peace, peaceful_run = undisturbed
    assert lab.outcome(run.id) == peace.outcome(peaceful_run)
    assert lab.leftovers() == []


def test_a_killed_training_process_goes_on_under_the_same_worker(lab: Lab, undisturbed: tuple[Lab, str]) -> None:
    run = lab.queue(SMALL)
    worker = lab.worker()
    lab.wait_for_fraction(run.id, 0.5)
    training = wait_until(lambda: lab.training_process(worker), "the training process")
    training.kill()
    ended = lab.wait_for_end(run.id)
    assert ended.state is State.DONE and worker.poll() is None
    assert any("goes on from the last checkpoint" in e["message"] for e in list_events(lab.db, run.id))
    peace, peaceful_run = undisturbed
    assert lab.outcome(run.id) == peace.outcome(peaceful_run)


def test_cancel_in_the_middle_of_an_epoch_then_retry(lab: Lab, undisturbed: tuple[Lab, str]) -> None:
    run = lab.queue(SMALL)
    lab.worker()
    wait_until(lambda: lab.run(run.id).progress.get("stage") == "stage1", "stage 1")
    request_stop(lab.db, run.id)
    assert lab.wait_for_end(run.id).state is State.CANCELLED
    retry_run(lab.db, run.id)
    assert lab.wait_for_end(run.id).state is State.DONE
    peace, peaceful_run = undisturbed
    assert lab.outcome(run.id) == peace.outcome(peaceful_run)


def test_sigterm_gives_the_run_back(lab: Lab) -> None:
    run = lab.queue(SMALL)
    worker = lab.worker()
    lab.wait_for_fraction(run.id, 0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert lab.run(run.id).state is State.QUEUED
    assert lab.leftovers() == []


def test_a_model_folder_that_is_not_there_is_one_sentence(lab: Lab) -> None:
    with pytest.raises(Mistake, match="there is no folder ‘/no/such/folder’"):
        lab.queue([*SMALL, "model=/no/such/folder"])
    folder = lab.home / "model"
    shutil.copytree(EMBEDDED_WEIGHTS, folder)
    run = lab.queue([*SMALL, f"model={folder}"])
    shutil.rmtree(folder)
    assert lab.worker("--once").wait() == 0
    ended = lab.run(run.id)
    assert ended.state is State.FAILED
    assert str(folder) in (ended.error or "") and len((ended.error or "").splitlines()) == 1
    assert "Traceback" in (lab.home / "runs" / run.id / "log.txt").read_text()


def test_a_run_deleted_with_its_folder_leaves_the_worker_alive(lab: Lab) -> None:
    gone, kept = lab.queue(SMALL), lab.queue([*SMALL, "stage1.epochs=1"], seed=2)
    delete_run(lab.db, gone.id)
    shutil.rmtree(lab.home / "runs" / gone.id, ignore_errors=True)
    assert lab.worker("--once").wait() == 0
    assert lab.run(kept.id).state is State.DONE


def test_two_workers_share_the_queue_though_their_clocks_differ_by_a_year(lab: Lab) -> None:
    ids = [lab.queue([*SMALL, "stage1.epochs=1", "evaluation.languages=[en]"], seed=s).id for s in (1, 2)]
    first = lab.worker("--once")
    wait_until(lambda: lab.run(ids[0]).state is State.RUNNING, "the first run")
    workers = [first, lab.worker("--once", clock=365 * 86400)]
    assert [w.wait() for w in workers] == [0, 0]
    assert [lab.run(i).state for i in ids] == [State.DONE, State.DONE]
    assert [lab.run(i).attempt for i in ids] == [1, 1]
