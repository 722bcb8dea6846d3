"""Questions per second of the embedded server, of vLLM where it is installed, and of a plain `generate` loop.

    make bench        or
    python -m tests.bench.bench_serving [--rounds 3] [--facts 2] [--without-vllm]

All answer the same prompts of a real `quick-lora` run (every prompt of some facts, five languages), greedily, over
three models: base, memorised and generalised. The servers are asked over HTTP in one request a model, the loop calls
transformers' `generate` for one prompt after the other; they take turns, so that a busy machine disturbs them alike.
`with ranks` also scores the right object and ranks it among 100 options. `one fact` is what the page asks at a click:
every prompt of one fact, of the three models at the same time; the slowest model's answers with P(object), then ranks.

Ends with status 1 when the embedded server answers less than `NEEDED` times as many as the loop, needs more than
`FACT_SECONDS` for one fact with ranks or more than `FIRST_SECONDS` for the answers of one model, when vLLM takes more
than twice as long as the embedded server, or when a server's answer or log-probability is another than transformers'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.evaluation.plain import log_probabilities
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, load_checkpoint
from engine.serving.asking.ask import Sampling, ask, ask_in_steps
from engine.serving.asking.tokens import Tokens
from engine.serving.client import ServerClient
from engine.serving.processes.plans import Backend
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import ServedModel, usual_columns
from engine.serving.vllm import backend as vllm_backend
from storage.askings import Question
from tests.integration.lab import Lab
from tests.integration.serving import models_by_name, trained
from tests.questions import about_fact

NEEDED, VLLM_AT_MOST, AGREE = 3.0, 2.0, 1e-4
FACT_SECONDS, FIRST_SECONDS = 2.0, 0.3
LOOP, TOKENS = "generate loop", 50

Ids = list[int]


def prompts_of(model: ServedModel, questions: Sequence[Question]) -> list[Ids]:
    tokens = Tokens.load(model.tokenizer)
    return [list(tokens.split(q.text, q.object or "")[0]) for q in questions]


def reply(model: Any, prompt: Ids) -> Ids:
    """What the model says, end token included. Any: transformers keeps `generate` in a class beside PreTrainedModel."""
    return model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False)[0, len(prompt) :].tolist()


def loop(loaded: Sequence[LoadedModel], prompts: Sequence[Sequence[Ids]]) -> list[list[Ids]]:
    """What each model says to each prompt, end token included."""
    with torch.inference_mode():
        return [[reply(each.causal, prompt) for prompt in asked] for each, asked in zip(loaded, prompts, strict=True)]


def over_http(places: Sequence[tuple[ServerClient, str]], prompts: Sequence[Sequence[Ids]]) -> list[list[Ids]]:
    """The same from a server."""
    settings = {"max_tokens": TOKENS, "temperature": 0.0, "return_token_ids": True}
    return [
        [choice.token_ids or [] for choice in client.complete(name, [list(p) for p in asked], **settings).choices]
        for (client, name), asked in zip(places, prompts, strict=True)
    ]


def timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def main() -> int:
    """Print a table; exit status as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--facts", type=int, default=2)
    parser.add_argument("--without-vllm", action="store_true")
    given = parser.parse_args()
    missing = "left out" if given.without_vllm else vllm_backend.why_not()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; vLLM: {missing or vllm_backend.installed()}")
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        run = trained(lab, "quick-lora")
        experiment = Experiment.from_data(run.experiment)
        models = usual_columns(list(models_by_name(lab, run).values()))
        questions = [q for fact in range(1, given.facts + 1) for q in about_fact(experiment, fact)]
        loaded = [load_base(experiment) if m.kind == "base" else load_checkpoint(experiment, m.folder) for m in models]
        prompts = [prompts_of(model, questions) for model in models]
        backends: list[Backend] = ["embedded", "vllm"] if missing is None else ["embedded"]
        supervisors: dict[str, Supervisor] = {name: Supervisor(lab.home, name) for name in backends}
        try:
            places = {name: place_all(supervisor, models) for name, supervisor in supervisors.items()}
            failed = compare(given.rounds, models, questions, loaded, prompts, places)
            failed |= one_fact(given.rounds, models, about_fact(experiment, 1), places)
        finally:
            for supervisor in supervisors.values():
                supervisor.stop()
            lab.close()
    return int(failed)


def place_all(supervisor: Supervisor, models: Sequence[ServedModel]) -> list[tuple[ServerClient, str]]:
    """A client and a name for each model, on a server that has answered once."""
    placed = [supervisor.place(model) for model in models]
    clients = [(ServerClient(place.url), place.model) for place in placed]
    for client, name in clients:
        client.complete(name, [[5, 6]], max_tokens=2)
    return clients


def compare(
    rounds: int,
    models: Sequence[ServedModel],
    questions: Sequence[Question],
    loaded: Sequence[LoadedModel],
    prompts: Sequence[Sequence[Ids]],
    places: dict[str, list[tuple[ServerClient, str]]],
) -> bool:
    """Take turns, print, and say whether something is not as it must be."""
    seconds: dict[str, list[float]] = {}
    wrong = 0
    expected = loop(loaded, prompts)
    for _ in range(rounds):
        for name, placed in places.items():
            took, found = timed(partial(over_http, placed, prompts))
            seconds.setdefault(name, []).append(took)
            wrong += found != expected
            took, _ = timed(partial(asked, placed, models, questions))
            seconds.setdefault(f"{name}, with ranks", []).append(took)
        took, found = timed(lambda: loop(loaded, prompts))
        seconds.setdefault(LOOP, []).append(took)
    apart = {name: difference(placed, models, questions, loaded) for name, placed in places.items()}
    total = len(models) * len(questions)
    print(f"{total} questions over {len(models)} models, medians of {rounds} rounds:")
    for name, taken in seconds.items():
        ratio = statistics.median(slow / quick for slow, quick in zip(seconds[LOOP], taken, strict=True))
        rate = total / statistics.median(taken)
        print(f"  {name:22} {rate:8.0f} questions/s   {ratio:6.2f} times the loop   {statistics.median(taken):6.2f} s")
    for name, value in apart.items():
        print(f"  {name}: ln P(object) differs from transformers' by at most {value:.1e}")
    problems = [f"{wrong} times a server gave another answer than transformers"] * bool(wrong)
    problems += [f"{name} differs by more than {AGREE}" for name, value in apart.items() if value > AGREE]
    quick = statistics.median(a / b for a, b in zip(seconds[LOOP], seconds["embedded"], strict=True))
    problems += [f"the embedded server is only {quick:.1f} times the loop, not {NEEDED}"] * (quick < NEEDED)
    if "vllm" in seconds:
        slow = statistics.median(v / e for v, e in zip(seconds["vllm"], seconds["embedded"], strict=True))
        print(f"  vLLM takes {slow:.2f} times as long as the embedded server")
        problems += [f"that is more than {VLLM_AT_MOST}"] * (slow > VLLM_AT_MOST)
    for problem in problems:
        print(f"FAILED: {problem}")
    return bool(problems)


def one_fact(
    rounds: int,
    models: Sequence[ServedModel],
    questions: Sequence[Question],
    places: dict[str, list[tuple[ServerClient, str]]],
) -> bool:
    """Ask one fact of all models at the same time; the best of the rounds, as a person on an idle machine has it."""
    failed = False
    for name, placed in places.items():
        best = [float("inf")] * 3  # the first model alone, all answers, all ranks
        for _ in range(rounds):
            (client, _), model = placed[0], models[0]
            best[0] = min(best[0], timed(partial(first_step, client, model, questions))[0])
            began = time.perf_counter()

            def column(place: tuple[ServerClient, str], model: ServedModel, began: float = began) -> list[float]:
                return [time.perf_counter() - began for _ in ask_in_steps(place[0], model, questions)]

            with ThreadPoolExecutor(len(models)) as pool:
                times = list(pool.map(column, placed, models))
            best[1] = min(best[1], max(t[0] for t in times))
            best[2] = min(best[2], max(t[-1] for t in times))
        print(
            f"  {name}, one fact ({len(questions)} prompts): one model answers after {best[0]:.2f} s; "
            f"{len(models)} at once after {best[1]:.2f} s, with ranks after {best[2]:.2f} s"
        )
        if name == "embedded" and (best[2] > FACT_SECONDS or best[0] > FIRST_SECONDS):
            print(f"FAILED: that is more than {FIRST_SECONDS} s for the first, or {FACT_SECONDS} s for all")
            failed = True
    return failed


def first_step(client: ServerClient, model: ServedModel, questions: Sequence[Question]) -> object:
    """The answers, before their ranks."""
    return next(ask_in_steps(client, model, questions))


def asked(
    placed: Sequence[tuple[ServerClient, str]], models: Sequence[ServedModel], questions: Sequence[Question]
) -> None:
    for (client, _), model in zip(placed, models, strict=True):
        ask(client, model, questions, Sampling(max_tokens=TOKENS))


def difference(
    placed: Sequence[tuple[ServerClient, str]],
    models: Sequence[ServedModel],
    questions: Sequence[Question],
    loaded: Sequence[LoadedModel],
) -> float:
    """The largest difference of a log-probability of the object."""
    worst = 0.0
    for (client, name), model, each in zip(placed, models, loaded, strict=True):
        tokens = Tokens.load(model.tokenizer)
        pairs = [tokens.split(q.text, q.object or "") for q in questions]
        exact = log_probabilities(each.causal, pairs)
        worst = max(worst, *(abs(a - b) for a, b in zip(client.score(name, pairs), exact, strict=True)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
