"""Answers per second: our greedy decoding with P(object) beside it, `generate`, and lm-evaluation-harness.

    make bench        or, after make exports:
    python -m tests.bench.bench_evaluation [--rounds 3] [--questions 128] [--tokens 12] [--without-harness]
                                           [--model FOLDER_OR_NAME]

All answer the same questions of the experiment on the same model, in float32 on the CPU, and take turns, so that a
busy machine disturbs them alike. The peers take batches of 32, with torch's threads inside their operations, and
compute no P(object). `generate` is given token ids, padded on the left, longest first; the harness starts from text,
as it always does. Ends with status 1 when an answer differs, or ours is less than `NEEDED` times as fast as a peer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.plain import Pair, known_length
from engine.evaluation.questions import questions_for
from engine.experiment import Experiment
from engine.hardware import cpu_threads
from engine.models.loading import LoadedModel
from engine.models.tokenise import tokenise_questions
from tests.bench.bench_choice import load

NEEDED, BATCH = 3.0, 32
OURS, GENERATE, HARNESS = "ours", "generate", "lm-evaluation-harness"

Answers = list[str]


@torch.inference_mode()
def generated(model: Any, pairs: Sequence[Pair], tokens: int, ends: Sequence[int]) -> list[tuple[int, ...]]:
    """transformers' own greedy answers, without end tokens."""
    answers: list[tuple[int, ...]] = [()] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda row: -len(pairs[row][0]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        width = max(len(pairs[row][0]) for row in rows)
        prompts = [list(pairs[row][0]) for row in rows]
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        whole = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=list(ends), pad_token_id=0
        )
        for row, answer in zip(rows, whole[:, width:].tolist(), strict=True):
            end = next((i for i, token in enumerate(answer) if token in ends), len(answer))
            answers[row] = tuple(answer[:end])
    return answers


def harness(loaded: LoadedModel, asked: Sequence[str], tokens: int, begins: bool) -> Callable[[], Answers]:
    """lm-evaluation-harness's `hf` model, through its own requests. begins: prompts are behind the beginning token."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=loaded.causal, tokenizer=loaded.tokenizer, batch_size=BATCH, device="cpu", add_bos_token=begins
    )
    greedy = {"until": [], "max_gen_toks": tokens, "do_sample": False}
    requests = [Instance("generate_until", {}, (text, greedy), i) for i, text in enumerate(asked)]
    return lambda: [str(answer).strip() for answer in lm.generate_until(requests, disable_tqdm=True)]


def ways_to_answer(
    loaded: LoadedModel, experiment: Experiment, count: int, tokens: int, with_harness: bool
) -> dict[str, Callable[[], Answers]]:
    """The ways to answer about `count` questions, spread over prompts and languages."""
    asked = questions_for(experiment, "base")
    asked = asked[:: max(1, len(asked) // count)][:count]
    model, ends = loaded.causal, end_tokens(loaded.causal, loaded.tokenizer)
    pairs = tokenise_questions(loaded.tokenizer, [(q.text, q.object) for q in asked])

    def texts(answers: Sequence[Sequence[int]]) -> Answers:
        return [str(loaded.tokenizer.decode(list(answer), skip_special_tokens=True)).strip() for answer in answers]

    def ours() -> Answers:
        prompts, limit = [q.prompt for q in asked], known_length(model)
        replies = reply_to(model, pairs, prompts, max_new_tokens=tokens, ends=ends, limit=limit)
        return texts([reply.tokens for reply in replies])

    ways = {GENERATE: lambda: texts(generated(model, pairs, tokens, ends)), OURS: ours}
    if with_harness:
        begins = pairs[0][0][0] == loaded.tokenizer.bos_token_id
        ways[HARNESS] = harness(loaded, [q.text for q in asked], tokens, begins)
    return ways


def main() -> int:
    """Print a table; exit status as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--without-harness", action="store_true")
    parser.add_argument("--model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loaded, experiment = load(Path(folder), given.model)
        ways = ways_to_answer(loaded, experiment, given.questions, given.tokens, not given.without_harness)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        answers: dict[str, Answers] = {}
        for _ in range(given.rounds):
            torch.set_num_threads(cpu_threads())
            for way, answer in ways.items():
                began = time.perf_counter()
                answers[way] = answer()
                seconds[way].append(time.perf_counter() - began)
    print(f"{loaded.causal.num_parameters():,} parameters, {len(answers[OURS])} questions")
    good = True
    for way, taken in seconds.items():
        median = statistics.median(taken)
        ratio = statistics.median(b / a for a, b in zip(seconds[OURS], taken, strict=True))
        differ = sum(a != b for a, b in zip(answers[OURS], answers[way], strict=True))
        good = good and not differ and (way == OURS or ratio >= NEEDED)
        print(
            f"{way:22} {len(answers[way]) / median:8.1f} answers/s ({median:.2f} s)"
            + ("" if way == OURS else f"; ours is {ratio:.1f} times as fast, {differ} answers differ")
        )
    print("passed" if good else f"failed: needed {NEEDED} x, and the same answers")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
