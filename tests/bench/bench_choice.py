"""Multiple-choice questions per second: our trees, every option as a sequence of its own, and lm-evaluation-harness.

    make bench        or, after make exports:
    python -m tests.bench.bench_choice [--rounds 3] [--questions 100] [--without-harness] [--model FOLDER_OR_NAME]

All score the same questions with 100 options on the same model, in float32 on the CPU, and take turns, so that a busy
machine disturbs them alike. Each may use all cores in its own way: ours puts batches side by side, the others use
torch's threads inside each operation. Ours and the plain sequences start from token ids, and ours includes building the
tree; the harness starts from text, as it always does. Two harder peers are shown beside them, without a threshold:
plain sequences as well as they can be done (equal shapes together, logits only where an option is), and the harness
without its tokenising.

Ends with status 1 when ours answers less than 10 times (of a `--model`: 4 times) the questions a second of the two
peers named without a dot, or when log-probabilities differ by more than 1e-4 (of a `--model`: 1e-3). Ratios are medians
over the rounds.
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

import numpy as np
import torch

from engine.corpus.resolve import resolve
from engine.evaluation.choice import score_options
from engine.evaluation.plain import log_probabilities
from engine.evaluation.questions import questions_for
from engine.experiment import Experiment
from engine.hardware import cpu_threads
from engine.models.loading import LoadedModel, load_base
from engine.models.source import EMBEDDED_WEIGHTS
from engine.models.tokenise import tokenise_questions
from tests.unit.tiny_models import build_qwen2

NEEDED, NEEDED_OF_LARGE = 10.0, 4.0
AGREE, AGREE_OF_LARGE = 1e-4, 1e-3  # of sums of logarithms, in float32
HARNESS_BATCH = 100
OURS, NAIVE, HARNESS = "option trees (ours)", "each option its own sequence", "lm-evaluation-harness"

Scorer = Callable[[], np.ndarray]  # log-probabilities: (questions, options)


def load(folder: Path, model: str | None = None) -> tuple[LoadedModel, Experiment]:
    """The named model; by default the embedded base if its weights are there, else a random Qwen2 of the same shape."""
    data: dict[str, Any] = {"relations": [{"name": "mother"}], "precision": "float32"}
    if model:
        data["model"] = model
    elif not (EMBEDDED_WEIGHTS / "model.safetensors").is_file():
        shape = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
        data["model"] = str(build_qwen2(folder, vocab_size=2600, intermediate_size=384, **shape))
    experiment = resolve(Experiment.from_data(data))
    return load_base(experiment), experiment


def scorers(loaded: LoadedModel, experiment: Experiment, count: int, harness: bool) -> dict[str, Scorer]:
    """The ways to score `count` questions, spread over prompts and languages."""
    asked = [q for q in questions_for(experiment, "base") if q.options]
    asked = asked[:: max(1, len(asked) // count)][:count]
    model, tokenizer = loaded.causal, loaded.tokenizer
    pairs = [tokenise_questions(tokenizer, [(q.text, o) for o in q.options]) for q in asked]

    def trees() -> np.ndarray:
        return np.array(score_options(model, pairs))

    def sequences() -> np.ndarray:
        flat = [pair for question in pairs for pair in question]
        return np.array(log_probabilities(model, flat)).reshape(len(pairs), -1)

    def padded() -> np.ndarray:
        return np.stack([padded_batch(model, question) for question in pairs])

    ways = {OURS: trees, NAIVE: padded, "… logits only where needed": sequences}
    if harness:
        texts = [(q.text, f" {o}") for q in asked for o in q.options]
        flat_ids = [(t, (list(p), list(o))) for t, (p, o) in zip(texts, (x for q in pairs for x in q), strict=True)]
        ways |= harness_scorers(model, tokenizer, texts, flat_ids, len(asked))
    return ways


@torch.inference_mode()
def padded_batch(model: Any, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> np.ndarray:
    """The options of one question as one batch of sequences, padded on the right: the usual way to write it."""
    longest = max(len(p) + len(o) for p, o in pairs)
    ids = torch.tensor([[*p, *o] + [0] * (longest - len(p) - len(o)) for p, o in pairs])
    scores = model(ids[:, :-1], use_cache=False).logits.float().log_softmax(-1)
    chosen = scores.gather(-1, ids[:, 1:, None])[..., 0].double()
    place = torch.arange(longest - 1)
    starts = torch.tensor([[len(p) - 1] for p, _ in pairs])
    ends = torch.tensor([[len(p) + len(o) - 1] for p, o in pairs])
    return (chosen * ((place >= starts) & (place < ends))).sum(1).numpy()


def harness_scorers(
    model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]], ids: Sequence[Any], questions: int
) -> dict[str, Scorer]:
    """lm-evaluation-harness's `hf` model through its own request interface, from text and from token ids."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    begins = ids[0][1][0][0] == tokenizer.bos_token_id
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=HARNESS_BATCH, device="cpu", add_bos_token=begins)
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(texts)]

    def from_text() -> np.ndarray:
        found = lm.loglikelihood(requests, disable_tqdm=True)
        return np.array([score for score, _ in found]).reshape(questions, -1)

    def from_ids() -> np.ndarray:
        found = lm._loglikelihood_tokens([(text, p, o) for text, (p, o) in ids], disable_tqdm=True)
        return np.array([score for score, _ in found]).reshape(questions, -1)

    return {HARNESS: from_text, "… without its tokenising": from_ids}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--without-harness", action="store_true")
    parser.add_argument("--model")
    settings = parser.parse_args()
    needed, agree = (NEEDED_OF_LARGE, AGREE_OF_LARGE) if settings.model else (NEEDED, AGREE)
    with tempfile.TemporaryDirectory() as folder:
        loaded, experiment = load(Path(folder), settings.model)
        torch.set_num_threads(cpu_threads())
        ways = scorers(loaded, experiment, settings.questions, not settings.without_harness)
        reference = {name: score() for name, score in ways.items()}  # also the warm-up
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(settings.rounds):
            for name, score in ways.items():
                start = time.perf_counter()
                found = score()
                speeds[name].append(len(found) / (time.perf_counter() - start))
    print(
        f"{loaded.causal.num_parameters():,} parameters, {reference[OURS].shape[1]} options, "
        f"{reference[OURS].shape[0]} questions, {settings.rounds} rounds, {cpu_threads()} cores"
    )
    passed = True
    for name, values in speeds.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(speeds[OURS], values, strict=True))
        difference = float(np.abs(reference[name] - reference[OURS]).max())
        print(
            f"{name:32} {statistics.median(values):8.1f} questions a second ({min(values):.1f} to {max(values):.1f})"
            f"   ours is {ratio:.1f} times as fast   largest difference {difference:.1e}"
        )
        passed &= difference <= agree and (name not in (NAIVE, HARNESS) or ratio >= needed)
    print("passed" if passed else f"failed: needed {needed:.0f} x and at most {agree}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
