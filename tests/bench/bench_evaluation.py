"""Answers per second: our greedy decoding with P(object) beside it, and `generate` in batches of 32.

    make bench        or
    python -m tests.bench.bench_evaluation [--rounds 3] [--questions 128] [--tokens 12] [--model FOLDER_OR_NAME]

Both answer the same questions of the experiment on the same model, in float32 on the CPU, and take turns, so that a
busy machine disturbs them alike. `generate` is given the prompts padded on the left, longest first, with torch's
threads inside its operations; it computes no P(object).
Ends with status 1 when an answer differs, or ours is less than `NEEDED` times as fast.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.plain import Pair, known_length
from engine.evaluation.questions import questions_for
from engine.hardware import cpu_threads
from engine.models.tokenise import tokenise_questions
from tests.bench.bench_choice import load

NEEDED, BATCH = 3.0, 32


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


def main() -> int:
    """Print a table; exit status as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loaded, experiment = load(Path(folder), given.model)
        asked = questions_for(experiment, "base")
        asked = asked[:: max(1, len(asked) // given.questions)][: given.questions]
        pairs = tokenise_questions(loaded.tokenizer, [(q.text, q.object) for q in asked])
        model, ends = loaded.causal, end_tokens(loaded.causal, loaded.tokenizer)
        seconds: dict[str, list[float]] = {"ours": [], "generate": []}
        for _ in range(given.rounds):
            torch.set_num_threads(cpu_threads())
            began = time.perf_counter()
            theirs = generated(model, pairs, given.tokens, ends)
            seconds["generate"].append(time.perf_counter() - began)
            began = time.perf_counter()
            replies = reply_to(
                model, pairs, [q.prompt for q in asked], max_new_tokens=given.tokens, ends=ends,
                limit=known_length(model),
            )  # fmt: skip
            seconds["ours"].append(time.perf_counter() - began)
    differ = sum(a.tokens != b for a, b in zip(replies, theirs, strict=True))
    for name, taken in seconds.items():
        print(f"{name:9} {len(pairs) / statistics.median(taken):8.1f} answers/s ({statistics.median(taken):.2f} s)")
    ratio = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["generate"], strict=True))
    print(f"{loaded.causal.num_parameters():,} parameters: ours is {ratio:.1f} times as fast; {differ} answers differ")
    good = ratio >= NEEDED and not differ
    print("passed" if good else f"failed: needed {NEEDED} x, and the same answers")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
