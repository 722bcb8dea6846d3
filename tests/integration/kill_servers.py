"""Kill a model server with SIGKILL again and again while questions run; say what became of them.

python -m tests.integration.kill_servers --times 10 [--seed 0] [--backend vllm]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from engine.serving.client import ServerClient, ServingError
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import ServedModel
from tests.integration.lab import Lab
from tests.integration.measures import Level, told
from tests.integration.serving import models_by_name, server_processes, trained

STEADY_SECONDS = 2.5
QUESTIONS = 16


@dataclass
class Outcome:
    """answers and messages: how often each came; back: seconds from each kill to the next answer; first_start: from
    nothing to the first answer, while nobody else asks."""

    answers: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    unforeseen: list[str] = field(default_factory=list)
    first_start: float = 0.0
    back: list[float] = field(default_factory=list)
    asked: int = 0
    level: str = ""  # of the process that watches over the servers, at the first kill and after the last


def kill_while_asking(
    supervisor: Supervisor, model: ServedModel, times: int, askers: int = 3, seed: int = 0
) -> Outcome:
    """Ask from several threads, kill the server (or, every third time, its keeper) `times` times, wait for each return.

    Every question is counted: as an answer, as a message, or as something unforeseen.
    """
    outcome, end, lock = Outcome(), threading.Event(), threading.Lock()
    chance = random.Random(seed)
    began = time.monotonic()
    first_answer(supervisor, model)
    outcome.first_start = time.monotonic() - began

    def ask() -> None:
        while not end.is_set():
            with lock:
                outcome.asked += 1
            try:
                here = supervisor.place(model)
                with ServerClient(here.url) as client:
                    reply = client.complete(here.model, [[5, i] for i in range(QUESTIONS)], max_tokens=12)
                assert len(reply.choices) == QUESTIONS
            except ServingError as error:
                with lock:
                    outcome.messages[re.sub(r":\d+", ":PORT", str(error))] += 1
                time.sleep(0.05)
            except Exception as error:
                with lock:
                    outcome.unforeseen.append(repr(error))
            else:
                with lock:
                    outcome.answers += 1

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(askers)]  # a failure below lets them go
    for thread in threads:
        thread.start()
    before: Level | None = None
    for number in range(times):
        time.sleep(STEADY_SECONDS + chance.random())
        before = before or Level.of(os.getpid())
        (server,) = supervisor.servers()
        keeper = server.keeper
        assert keeper is not None
        child = psutil.Process(keeper.pid).children()[0]
        os.kill(keeper.pid if number % 3 == 2 else child.pid, signal.SIGKILL)
        killed = time.monotonic()
        while server.state == "ready":
            time.sleep(0.02)
        first_answer(supervisor, model)
        outcome.back.append(time.monotonic() - killed)
    time.sleep(STEADY_SECONDS)
    outcome.level = told(before, Level.of(os.getpid())) if before else ""
    end.set()
    for thread in threads:
        thread.join()
    return outcome


def first_answer(supervisor: Supervisor, model: ServedModel) -> None:
    """Returns when the model has answered, its server and its weights loaded if need be."""
    place = supervisor.place(model)
    with ServerClient(place.url) as client:
        client.complete(place.model, [[5]], max_tokens=1)


def main() -> int:
    """Exit code 0 when every question was answered or failed with a message, and nothing was left running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=["embedded", "vllm"], default="embedded")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        run = trained(lab, "quick-lora", "stage1.checkpoint_epochs=[20]")
        supervisor = Supervisor(lab.home, arguments.backend)
        try:
            model = models_by_name(lab, run)["generalised@20"]
            outcome = kill_while_asking(supervisor, model, arguments.times, seed=arguments.seed)
        finally:
            supervisor.stop()
        left = server_processes(lab.home)
        lab.close()
    print(f"{arguments.times} kills of {arguments.backend}: {outcome.asked} requests of {QUESTIONS} questions")
    print(f"  answered {outcome.answers}, failed with a message {sum(outcome.messages.values())}")
    for message, count in outcome.messages.most_common():
        print(f"    {count} × {message}")
    print(f"  came back {len(outcome.back)} of {arguments.times}; {outcome.level}")
    print(f"  unforeseen {outcome.unforeseen or 'none'}; left running {left or 'none'}")
    print(f"  first start {outcome.first_start:.1f} s; back after {', '.join(f'{s:.1f}' for s in outcome.back)} s")
    return int(bool(outcome.unforeseen or left))


if __name__ == "__main__":
    sys.exit(main())
