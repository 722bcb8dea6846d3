"""Runs on a real cluster of two nodes: the same figures as here, a node killed, a run cancelled, an owner killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.execution.studies.queue import queue_study
from engine.studies.study import Study
from storage.measurements import Result
from storage.runs import State, list_events, request_stop
from storage.studies import list_study_runs, study_counts
from tests.bench.bench_cluster import figures, plan
from tests.integration.kill_runs import SMALLEST
from tests.integration.lab import Lab, wait_until
from tests.integration.measures import files_of
from tests.ray.cluster import Machines

# A first checkpoint soon, and the last one never.
LONG = [
    *SMALLEST,
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 200}}]",
    "stage1.epochs=1000",
    "stage1.checkpoint_epochs=[1, 1000]",
]


def kinds(lab: Lab, run: str) -> list[str]:
    return [event["kind"] for event in list_events(lab.db, run)]


Outcome = tuple[list[Result], dict[str, Any]]


def same_but_for_rounding(mine: Outcome, theirs: Outcome) -> None:
    """Which of a study's runs asks what they share first is another one on a cluster, where they run side by side.

    Then questions are batched otherwise, so that sums of logarithms are rounded otherwise. All else is the same.
    """
    for one, other in zip(mine[0], theirs[0], strict=True):
        rounded = {k: pytest.approx(v, abs=1e-4) if isinstance(v, float) else v for k, v in vars(other).items()}
        assert vars(one) == rounded
    assert mine[1].keys() == theirs[1].keys()
    for what, stored in mine[1].items():
        for one, other in zip(stored, theirs[1][what], strict=True):
            if isinstance(one, dict):
                assert one == {k: pytest.approx(v, abs=1e-4) if "log" in k else v for k, v in other.items()}, what
            else:
                assert one == other, what


def test_a_study_survives_the_death_of_a_node_with_the_same_table(machines: Machines, lab: Lab, tmp_path: Path) -> None:
    here = Lab(tmp_path / "here")
    small: dict[str, Any] = plan(4)
    small["leave_out"] = [{"stage2.facts": 8, "stage2.epochs": 3}]
    studies = {at: queue_study(at.db, Study.from_data(small)) for at in (here, lab)}
    assert here.worker("--once").wait() == 0

    owner = lab.worker("--once", "--on", machines.address)
    wait_until(lambda: study_counts(lab.db, studies[lab]).get("done"), "the first run")
    victim = wait_until(lambda: next((n for n in machines.nodes if machines.trains(n)), None), "a run on a node")
    machines.kill(victim)
    machines.nodes.remove(victim)
    machines.nodes.append(machines.add())
    assert owner.wait() == 0

    runs = [run.run for run in list_study_runs(lab.db, studies[lab])]
    assert [lab.run(run).state for run in runs] == [State.DONE] * 3
    assert [kinds(lab, run).count("done") for run in runs] == [1, 1, 1]
    # One that was under way there, and perhaps one that was just going there.
    interrupted = sum(kinds(lab, run).count("interrupted") for run in runs)
    assert interrupted in (1, 2)
    assert sum(lab.run(run).attempt for run in runs) == 3 + interrupted
    assert figures(lab, studies[lab]) == figures(here, studies[here])
    for mine, theirs in zip(runs, list_study_runs(here.db, studies[here]), strict=True):
        same_but_for_rounding(lab.outcome(mine), here.outcome(theirs.run))
        assert files_of(lab.home / "runs" / mine) == files_of(here.home / "runs" / theirs.run)
    # What the other runs memorised travelled there, not back: it is the first one's files.
    first, second = (lab.home / "runs" / run / "checkpoints/memorised@8/model.safetensors" for run in runs[:2])
    assert first.samefile(second)
    assert not list(lab.home.rglob(".arriving*"))
    here.close()


def test_a_run_of_a_dead_node_goes_on_from_the_checkpoint_that_arrived(machines: Machines, lab: Lab) -> None:
    run = lab.queue(LONG)
    owner = lab.worker("--once", "--on", machines.address)
    wait_until((lab.home / "runs" / run.id / "checkpoints/memorised@1").is_dir, "a checkpoint that arrived")
    victim = next(node for node in machines.nodes if machines.trains(node))
    machines.kill(victim)
    machines.nodes.remove(victim)
    machines.nodes.append(machines.add())
    wait_until(lambda: lab.run(run.id).attempt == 2, "the second attempt")
    wait_until(lambda: "Memorising" in lab.run(run.id).progress.get("message", ""), "its training")
    told = kinds(lab, run.id)
    assert told.count("interrupted") == 1 and told.count("placed") == 2 and "resumed" in told, told
    request_stop(lab.db, run.id)
    assert owner.wait() == 0
    assert lab.run(run.id).state is State.CANCELLED


def test_a_run_is_seen_live_and_cancelled_through_ray_client(machines: Machines, lab: Lab) -> None:
    run = lab.queue(LONG)
    owner = lab.worker("--once", "--on", machines.client)
    wait_until(lambda: "Memorising" in lab.run(run.id).progress.get("message", ""), "the training")
    assert lab.run(run.id).state is State.RUNNING
    assert (lab.home / "runs" / run.id / "log.txt").read_text()
    assert request_stop(lab.db, run.id) is State.STOPPING
    assert owner.wait() == 0
    assert lab.run(run.id).state is State.CANCELLED
    wait_until(lambda: not any(machines.trains(node) for node in machines.nodes), "the end of the training")


def test_a_killed_owner_leaves_nothing_behind_and_the_next_one_goes_on(machines: Machines, lab: Lab) -> None:
    run = lab.queue(LONG)
    owner = lab.worker("--on", machines.address)
    trains = wait_until(lambda: [t for n in machines.nodes for t in machines.trains(n)], "a training")
    wait_until((lab.home / "runs" / run.id / "checkpoints/memorised@1").is_dir, "a checkpoint to go on from")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, left = psutil.wait_procs(trains, timeout=90)
    assert not left
    assert lab.run(run.id).state is State.RUNNING  # for whoever looks, until somebody finds the owner gone
    following = lab.worker("--once", "--on", machines.address)
    wait_until(lambda: "resumed" in kinds(lab, run.id), "the second attempt to go on from there")
    assert lab.run(run.id).attempt == 2
    request_stop(lab.db, run.id)
    assert following.wait() == 0
    assert lab.run(run.id).state is State.CANCELLED
