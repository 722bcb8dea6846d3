"""What a GPU makes of the lab: one relation of the paper's preset on a model of Qwen2.5-1.5B's shape, part by part.

    python -m tests.bench.bench_gpu [--out FILE.json]        # some minutes on a GPU; needs no network
    python -m tests.bench.bench_gpu --tiny                   # the same on a processor, at a tiny size, in a minute

The weights are random, the configuration is the real one, the tokenizer is the embedded base's: what is computed is
what a real model would compute, but the answers mean nothing. Measured are the peak of a matrix product; training at
several batch sizes, ours and transformers' Trainer, as facts a second and share of that peak; a whole run, by its
parts; answers a second, ours and `generate` in batches of 32; whether two evaluations give the same answers.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from engine.corpus.resolve import resolve
from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.plain import known_length
from engine.evaluation.questions import questions_for
from engine.execution.execute import execute_run
from engine.experiment import Experiment
from engine.models.device import choose_device, describe_hardware
from engine.models.loading import LoadedModel, load_base
from engine.models.source import EMBEDDED_WEIGHTS
from engine.models.tokenise import tokenise_questions
from engine.presets import load_preset
from engine.settings import Optimisation
from engine.training.sequences import stage1_sequences
from storage.database import open_database
from storage.measurements import SECONDS, list_measurements
from storage.runs import add_run, claim_run, get_run
from tests.bench.bench_evaluation import generated
from tests.bench.bench_training import run_ours, run_trainer

# huggingface.co/Qwen/Qwen2.5-1.5B, config.json.
QWEN = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 131072, "rope_theta": 1e6,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
TINY = QWEN | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 6000,
    "max_position_embeddings": 512,
}  # fmt: skip
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def model_folder(folder: Path, shape: dict[str, Any]) -> Path:
    """A folder with a model of that shape: random weights in bfloat16."""
    torch.manual_seed(0)
    with torch.device(choose_device()):
        model: Any = Qwen2ForCausalLM(Qwen2Config(**shape))
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    for name in TOKENIZER:
        if (EMBEDDED_WEIGHTS / name).is_file():
            shutil.copy(EMBEDDED_WEIGHTS / name, folder)
    return folder


def waited() -> float:
    """The time, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_operations(size: int) -> float:
    """Operations a second of a large product of matrices in bfloat16, the best of ten."""
    a, b = (torch.randn(size, size, device=choose_device(), dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = waited()
        a @ b
        best = min(best, waited() - began)
    return 2 * size**3 / best


def training(experiment: Experiment, batches: list[int], facts: int, peak: float, folder: str) -> list[dict[str, Any]]:
    """Ours and Trainer's at each batch size, in turns: facts a second, share of the peak, memory, losses."""
    base = load_base(experiment, to_train=True)
    sequences = stage1_sequences(experiment, base)
    sequences = (sequences * (facts // len(sequences) + 1))[:facts]
    tokens, weights = sum(len(s.input_ids) for s in sequences), base.causal.num_parameters()
    rows = []
    for size in batches:
        settings = Optimisation(epochs=1, learning_rate=1e-5, batch_size=size, loss="full")
        row: dict[str, Any] = {"batch": size, "facts": facts, "tokens": tokens}
        curves = {}
        for round_ in range(2):  # the first warms up
            for name in ("ours", "trainer"):
                loaded = _copy(base)
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                began = waited()
                if name == "ours":
                    curves[name] = run_ours(loaded, sequences, settings, mixed=True)[1]
                else:
                    curves[name] = run_trainer(loaded, sequences, settings, folder, mixed=True)[1]
                seconds = waited() - began
                if round_:
                    row[name] = {"facts_a_second": facts / seconds, "of_peak": 6 * weights * tokens / seconds / peak}
                    if torch.cuda.is_available():
                        row[name]["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
                del loaded
        row["losses_differ_by"] = max(abs(a - b) for a, b in zip(curves["ours"], curves["trainer"], strict=True))
        rows.append(row)
        print(json.dumps(row))
    return rows


def _copy(base: LoadedModel) -> LoadedModel:
    loaded = copy.copy(base)
    loaded.model = copy.deepcopy(base.model).float()
    loaded.kept_dtype = None  # float32 weights for both, so that neither rounds at the end
    return loaded


def answering(experiment: Experiment, count: int, tokens: int) -> dict[str, Any]:
    """Answers a second of both, and whether ours are the same twice."""
    loaded = load_base(experiment)
    asked = questions_for(experiment, "base")
    asked = (asked * (count // len(asked) + 1))[:count]
    pairs = tokenise_questions(loaded.tokenizer, [(q.text, q.object) for q in asked])
    model, ends = loaded.causal, end_tokens(loaded.causal, loaded.tokenizer)

    def ours() -> list[Any]:
        return reply_to(
            model, pairs, [q.prompt for q in asked], max_new_tokens=tokens, ends=ends, limit=known_length(model)
        )

    ours()
    times, replies = [], []
    for _ in range(2):
        began = waited()
        replies.append(ours())
        times.append(waited() - began)
    began = waited()
    theirs = generated(model, pairs, tokens, ends)
    peer = waited() - began
    return {
        "questions": count, "tokens": tokens, "ours_a_second": count / min(times), "generate_a_second": count / peer,
        "same_twice": replies[0] == replies[1],
        "other_tokens_than_generate": sum(a.tokens != b for a, b in zip(replies[0], theirs, strict=True)),
    }  # fmt: skip


def whole_run(home: Path, experiment: Experiment) -> dict[str, Any]:
    """A run from its start to its end: seconds in all and by part."""
    with closing(open_database(home)) as db:
        data = experiment.model_dump(mode="json")
        add_run(db, name=experiment.name, experiment=data, model=experiment.model, seed=experiment.seed)
        run = claim_run(db, "bench", 3600)
        assert run is not None
        began = waited()
        state = execute_run(db, home, run)
        seconds = waited() - began
        parts = {row["stage"]: round(row["value"], 2) for row in list_measurements(db, run.id, SECONDS)}
        ended = get_run(db, run.id)
        disk = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
        return {
            "state": state.value, "error": ended.error, "seconds": seconds, "parts": parts,
            "training_in": ended.environment.get("training_in"), "disk_gb": disk / 1e9,
        }  # fmt: skip


def main() -> int:
    """Measure; 0 when the run ended well and two evaluations agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--facts", type=int, default=512)
    parser.add_argument("--questions", type=int, default=2048)
    given = parser.parse_args()
    if given.tiny:
        given.batches, given.facts, given.questions = [8], 16, 32
    found: dict[str, Any] = {"hardware": describe_hardware(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as place:
        began = waited()
        folder = model_folder(Path(place, "model"), TINY if given.tiny else QWEN)
        relation = {"name": "mother", "key_token": "[X]", "facts": {"generate": 12 if given.tiny else 100}}
        plain = load_preset("qwen2.5-1.5b").model_dump(exclude_unset=True) | {"relations": [relation]}
        small = {"stage1": {"epochs": 1}, "stage2": {"facts": 6}, "evaluation": {"languages": ["en"]}}
        plain |= {"model": str(folder), **(small if given.tiny else {})}
        experiment = resolve(Experiment.from_data(plain))
        found["making_the_model_seconds"] = waited() - began
        found["peak"] = peak_operations(512 if given.tiny else 8192)
        found["run"] = whole_run(Path(place, "home"), experiment)
        print(json.dumps(found))
        found["training"] = training(experiment, given.batches, given.facts, found["peak"], place)
        found["answers"] = answering(experiment, given.questions, 8 if given.tiny else 50)
        print(json.dumps(found["answers"]))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    good = found["run"]["state"] == "done" and found["answers"]["same_twice"]
    print("passed" if good else "failed: see above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
