"""A study on a cluster of two nodes beside one worker: the same table, also when a node is killed; and what it costs.

python -m tests.bench.bench_cluster [--runs 20] [--pairs 8] [--client]

Three labs, each with the same study: a local worker; a cluster of two nodes, of which one is killed with SIGKILL in the
middle of a run, when about half of the runs are done, while another one joins; two nodes in peace. Then runs one by
one, in turn on a node and by a worker: what else works on this machine is then the same for both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.execution.studies.queue import queue_study
from engine.execution.studies.report import study_figures
from engine.studies.study import Study
from storage.runs import State, list_events
from storage.studies import list_study_runs, study_counts
from tests.integration.kill_runs import SMALLEST
from tests.integration.lab import Lab, wait_until
from tests.ray.cluster import Machines, use_token


def plan(runs: int) -> dict[str, Any]:
    """A study of so many runs (a multiple of four), of which four at a time memorise the same."""
    return {
        "name": "cluster",
        "experiment": {
            "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 20}}],
            "stage1": {"epochs": 8},
            "stage2": {"facts": 8},
            "evaluation": {"languages": ["en"], "facts": 12, "choice": {"facts": 4}, "max_new_tokens": 8},
        },
        "axes": {
            "seed": list(range(runs // 4)),
            "stage1.checkpoint_epochs": [3, 8],
            "stage2.facts": [2, 8],
            "stage2.epochs": [1, 3],
        },
    }


def figures(lab: Lab, study: str) -> list[dict[str, Any]]:
    """Every figure of the study's table, without the ids that each lab gives to its runs."""
    found = []
    for figure in study_figures(lab.db, lab.home, study):
        seeds = {seed: own["value"] for seed, own in figure.seeds.items()}
        found.append(asdict(figure) | {"seeds": seeds})
    return found


def carried_out(folder: Path, runs: int, *options: str, meanwhile: Callable[[Lab, str], None] | None = None) -> Any:
    """The figures of the study in a new lab, and its seconds; says what became of its runs."""
    lab = Lab(folder)
    study = queue_study(lab.db, Study.from_data(plan(runs)))
    began = time.monotonic()
    worker = lab.worker("--once", *options)
    if meanwhile:
        meanwhile(lab, study)
    code, seconds = worker.wait(), time.monotonic() - began
    ids = [run.run for run in list_study_runs(lab.db, study)]
    events = Counter(event["kind"] for run in ids for event in list_events(lab.db, run))
    attempts = Counter(lab.run(run).attempt for run in ids)
    words = f"{len(ids)} runs, {study_counts(lab.db, study)}, exit code {code}, {seconds:.0f} s; events {dict(events)}"
    print(f"  {words}; attempts {dict(attempts)}", flush=True)
    twice = [run for run in ids if sum(event["kind"] == "done" for event in list_events(lab.db, run)) != 1]
    left = sorted(path.name for path in lab.home.rglob(".*") if path.is_dir())
    print(f"  not done exactly once: {twice or 'none'}; left half done: {left or 'none'}", flush=True)
    table = figures(lab, study)
    lab.close()
    return table, seconds


def main() -> int:
    """Print what each took; exit code 0 when all tables are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--client", action="store_true", help="from outside of the cluster, by ray://")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        use_token(folder / "nodes")
        print("one worker", flush=True)
        here, alone = carried_out(folder / "here", arguments.runs)
        machines = Machines(2)
        address = machines.client if arguments.client else machines.address

        def kill(lab: Lab, study: str) -> None:
            victim = machines.nodes[0]
            wait_until(
                lambda: study_counts(lab.db, study).get("done", 0) >= arguments.runs // 2 - 1, "half of the runs"
            )
            wait_until(lambda: machines.trains(victim), "a training process on the node")

            def in_the_middle() -> bool:
                runs = [run for run in list_study_runs(lab.db, study) if run.state is State.RUNNING]
                return bool(machines.trains(victim)) and any(run.progress.get("fraction", 0) > 0.2 for run in runs)

            wait_until(in_the_middle, "a run in its middle")
            print(f"  killed {len(machines.kill(victim))} processes of a node", flush=True)
            machines.nodes = [machines.nodes[1], machines.add()]

        print("two nodes, one of them killed, one that joins", flush=True)
        killed, lost = carried_out(folder / "killed", arguments.runs, "--on", address, meanwhile=kill)
        print(f"  {len(here)} figures, equal to the worker's: {killed == here}", flush=True)
        print("a cluster of two nodes", flush=True)
        peaceful, two = carried_out(folder / "peaceful", arguments.runs, "--on", address)
        print(f"  equal: {peaceful == here}", flush=True)
        machines.kill(machines.nodes.pop())
        differences = in_turn(folder, address, arguments.pairs)
        machines.close()
    print(f"two nodes {alone / two:.2f} times as fast as one worker; with a killed node {alone / lost:.2f} times")
    print(
        f"a run on a node takes {statistics.median(differences):+.1f} s more than by a worker, in the median of"
        f" {len(differences)} pairs ({min(differences):+.1f} to {max(differences):+.1f} s)"
    )
    return int(not (peaceful == here and killed == here))


def in_turn(folder: Path, address: str, pairs: int) -> list[float]:
    """By how many seconds a run took longer on a node than by a worker that waits for it, from queue to end."""
    labs = Lab(folder / "node"), Lab(folder / "worker")
    workers = labs[0].worker("--on", address), labs[1].worker()
    differences = []
    for seed in range(pairs + 1):
        took = []
        for lab in labs:
            began = time.monotonic()
            assert lab.wait_for_end(lab.queue(SMALLEST, seed=seed).id).state is State.DONE
            took.append(time.monotonic() - began)
        print(f"  {took[0]:.1f} s on a node, {took[1]:.1f} s by a worker", flush=True)
        differences.append(took[0] - took[1])
    for worker, lab in zip(workers, labs, strict=True):
        worker.terminate()
        worker.wait()
        lab.close()
    return differences[1:]  # the first also waits for the connection


if __name__ == "__main__":
    sys.exit(main())
