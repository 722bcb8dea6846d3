"""Kill what works on a real run with SIGKILL at random moments, and compare with a run left in peace.

python -m tests.integration.kill_runs --what worker|training|app --times 10 --seed 0 [--a-run 2] [--whole]

worker: the process that watches over the training. training: the process that trains. app: `python -m app`, with its
worker and what that trains. Each run is killed `--a-run` times on its way. What survives the kills is measured at
their start and at their end: with `worker` a lab's page that is looked at, with `training` the worker, with `app` the
page that was started last, against the first.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from engine.serving.listening import free_port
from storage.runs import Run
from tests.integration.lab import ROOT, Lab, wait_until
from tests.integration.measures import Level, files_of, told

# Both stages, a kept epoch and a branch on the way, every kind of question: and a few seconds in all.
SMALLEST = [
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 12}}]",
    "stage1.epochs=8",
    "stage1.checkpoint_epochs=[3, 8]",
    "stage2.facts=4",
    "evaluation.languages=[en]",
    "evaluation.choice.facts=3",
    "evaluation.max_new_tokens=8",
]
ORPHAN_SECONDS = 30


class Page:
    """`python -m app` on a lab's home."""

    def __init__(self, lab: Lab, *options: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "app", "--home", str(lab.home), "--port", str(self.port), *options]
        log = (lab.home / "said.txt").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        log.close()
        wait_until(self.look, "the page")

    def look(self) -> bool:
        """Load its first page and the list of runs; whether it answered."""
        assert self.process.poll() is None, "the page ended"
        try:
            for path in ("/", "/runs"):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60).read()
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Stop it in an orderly way."""
        self.process.terminate()
        self.process.wait()


class Killing:
    """One kind of kill: `begin` has something work on the queue, `kill` kills it and starts it again if need be."""

    def __init__(self, lab: Lab, what: str) -> None:
        self.lab, self.what = lab, what
        self.page = Page(lab, *([] if what == "app" else ["--no-worker"])) if what != "training" else None
        self.worker = lab.worker() if what == "training" else None

    def level(self) -> Level:
        """Of what survives."""
        if self.page is not None:
            for _ in range(5):
                self.page.look()
            return Level.of(self.page.process.pid)
        assert self.worker is not None
        return Level.of(self.worker.pid)

    def begin(self) -> None:
        """Have something work on the queue."""
        if self.what == "worker":
            self.worker = self.lab.worker()

    def kill(self) -> None:
        """Kill it with SIGKILL, see that nothing of it stays, and start it again."""
        if self.what == "training":
            assert self.worker is not None
            if (process := self.lab.training_process(self.worker)) is not None:
                process.kill()
                psutil.wait_procs([process], timeout=ORPHAN_SECONDS)
            return
        victim = self.page.process if self.what == "app" and self.page else self.worker
        assert victim is not None
        children = psutil.Process(victim.pid).children(recursive=True)
        victim.kill()
        victim.wait()
        _, orphans = psutil.wait_procs(children, timeout=ORPHAN_SECONDS)
        assert not orphans, f"still there after {ORPHAN_SECONDS} s: {orphans}"
        if self.what == "app":
            self.page = Page(self.lab)
        else:
            self.begin()

    def ended(self) -> None:
        """After a run: with `worker` its last one is stopped, so that the next run begins with a new one."""
        if self.what == "worker":
            assert self.worker is not None
            self.worker.terminate()
            self.worker.wait()

    def close(self) -> None:
        """End what still works."""
        if self.page is not None:
            self.page.end()


def kill_all(lab: Lab, killing: Killing, queue: Callable[[], Run], peaceful: Run, plan: list[list[float]]) -> list[str]:
    """Kill each run at the fractions of its plan; returns how each differed from the peaceful one, '' for not."""
    expected, files = lab.outcome(peaceful.id), files_of(lab.home / "runs" / peaceful.id)
    differences = []
    for number, fractions in enumerate(plan, 1):
        run, began, at = queue(), time.monotonic(), []
        killing.begin()
        for fraction in fractions:
            lab.wait_for_fraction(run.id, fraction)
            time.sleep(random.Random(fraction).random() / 3)
            at.append(str(lab.run(run.id).progress.get("message", "before it began")))
            killing.kill()
        ended = lab.wait_for_end(run.id)
        resume = lab.home / "runs" / run.id / "resume"
        while resume.exists():  # the end of its process, a moment after that of the run
            time.sleep(0.1)
        problems = []
        if ended.state != "done":
            problems.append(f"lost, {ended.state.value}: {ended.error}")
        elif lab.outcome(run.id) != expected:
            problems.append("other numbers")
        if odd := files_of(lab.home / "runs" / run.id) ^ files:
            problems.append(f"other files: {sorted(odd)}")
        killing.ended()
        differences.append("; ".join(problems))
        took = time.monotonic() - began
        print(f"{number}: killed at {' / '.join(at)}; {differences[-1] or 'equal'} ({took:.0f} s)", flush=True)
    return differences


def main() -> int:
    """Print a line for each killed run; exit code 0 when all ended done, equal to the peaceful one, without orphans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["worker", "training", "app"], default="worker")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--a-run", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--whole", action="store_true", help="the preset as it is, not the smallest experiment")
    arguments = parser.parse_args()
    chance = random.Random(f"{arguments.what} {arguments.seed}")
    moments = [chance.random() for _ in range(arguments.times)]
    plan = [sorted(moments[i : i + arguments.a_run]) for i in range(0, len(moments), arguments.a_run)]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))

        def queue() -> Run:
            return lab.queue([] if arguments.whole else SMALLEST, preset=arguments.preset)

        peaceful = queue()
        lab.worker("--once").wait()
        print(f"in peace: {lab.run(peaceful.id).state.value}, {len(lab.outcome(peaceful.id)[0])} rows", flush=True)
        killing = Killing(lab, arguments.what)
        # What is loaded once shall be loaded before it is measured; a page that was killed is compared with one such.
        kill_all(lab, killing, queue, peaceful, [[0.3] if arguments.what == "app" else []])
        before = killing.level()
        differences = kill_all(lab, killing, queue, peaceful, plan)
        after = killing.level()
        killing.close()
        lab.close()
        orphans = lab.leftovers()
        left = sorted(name for name in files_of(lab.home) if Path(name).name.startswith(".") or name.endswith(".tmp"))
    lost, equal = sum("lost" in d for d in differences), differences.count("")
    print(f"{arguments.times} kills of the {arguments.what}, seed {arguments.seed}, {arguments.a_run} a run:")
    print(
        f"{equal} of {len(differences)} equal; lost {lost}; orphans {orphans or 'none'}; "
        f"temporary files {left or 'none'}; {told(before, after)}"
    )
    return int(equal != len(differences) or bool(orphans or left))


if __name__ == "__main__":
    sys.exit(main())
