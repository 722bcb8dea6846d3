"""Facts per second of our training loop and of transformers' Trainer, on the same model, sequences, order and seed.

    python -m tests.bench.bench_training [--rounds 5] [--batches 4 20] [--facts 100] [--epochs 3] [--model FOLDER]

Both train stage 1 with AdamW (fused), clipping and the same learning rates, in float32 on the CPU, with one step's loss
recorded each. They take turns, so that a busy machine disturbs both alike; the loss curves must agree. The model is the
embedded base if its weights are there, else a random Qwen2 of the same shape. Ends with status 1 when the ratio of the
medians (wall time) is below 1.3 or the curves differ. Longer sequences (24 tokens) bring the ratio down to about
1.3 (1.26 in CPU time): what is saved is time around the model, not in it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base
from engine.models.source import EMBEDDED_WEIGHTS
from engine.settings import Optimisation
from engine.training.batches import epoch_order
from engine.training.loop import learning_rate_at, train
from engine.training.optimizers import BETAS
from engine.training.sequences import IGNORED, TrainingSequence, stage1_sequences
from tests.unit.tiny_models import OBJECTS, SUBJECTS, build_qwen2

Seconds = tuple[float, float]
FACTS, EPOCHS, SEED, STAGE = 100, 3, 0, "stage1"
NEEDED, CURVES_AGREE = 1.3, 1e-3


def shipped_experiment(model: str) -> Experiment:
    """The shipped relation `mother` with generated facts, as on the Design page."""
    relation = {"name": "mother", "facts": {"generate": FACTS}}
    return resolve(
        Experiment.from_data({"model": model, "precision": "float32", "seed": SEED, "relations": [relation]})
    )


def random_experiment(folder: Path) -> Experiment:
    """Names of words the tests' tokenizer knows, on a random Qwen2 of the embedded base's shape."""
    first, last = (sorted({name.split()[i] for name in SUBJECTS + OBJECTS}) for i in (0, -1))
    names = [f"{a} {b}" for a in first for b in last]
    facts = [{"subject": s, "object": o} for s, o in zip(names[:FACTS], names[-FACTS:], strict=True)]
    prompts = [{"text": "Who is the mother of {subject}?", "split": "train"}]
    relation = {"name": "mother", "facts": facts, "prompts": prompts, "options": [f["object"] for f in facts]}
    model = build_qwen2(
        folder,
        vocab_size=4096,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
    )
    return Experiment.from_data({"model": str(model), "seed": SEED, "relations": [relation]})


class Clock:
    """Seconds since it was made: on the wall, and of this process's CPU time, which other processes disturb less."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> Seconds:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


class FixedOrder(Sampler):
    """The order of our own loop, epoch by epoch."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(epoch_order(self.count, SEED, STAGE, self.epoch))


class RecordingTrainer(Trainer):
    """transformers' Trainer in a given order, keeping each loss without waiting for it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.losses: list[torch.Tensor] = []

    def _get_train_sampler(self, *args: Any, **options: Any) -> FixedOrder:
        return FixedOrder(len(self.train_dataset))  # type: ignore[arg-type]

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        loss = super().compute_loss(*args, **options)
        self.losses.append((loss[0] if isinstance(loss, tuple) else loss).detach())
        return loss


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad to the longest of the batch, as transformers' data collators do."""
    longest = max(len(r["input_ids"]) for r in rows)

    def padded(name: str, value: int) -> torch.Tensor:
        return torch.tensor([r[name] + [value] * (longest - len(r[name])) for r in rows])

    return {
        "input_ids": padded("input_ids", 0),
        "attention_mask": padded("attention_mask", 0),
        "labels": padded("labels", IGNORED),
    }


def run_ours(
    loaded: LoadedModel, sequences: list[TrainingSequence], settings: Optimisation, mixed: bool = False
) -> tuple[Seconds, list[float]]:
    """Seconds of training, and the loss of each step. mixed: products in bfloat16."""
    losses: list[float] = []
    clock = Clock()
    train(
        loaded,
        sequences,
        settings,
        seed=SEED,
        stage=STAGE,
        on_step=lambda report: losses.append(report.loss),
        on_epoch=lambda epoch, trainer: None,
        mixed=mixed,
    )
    return clock.read(), losses


def run_trainer(
    loaded: LoadedModel, sequences: list[TrainingSequence], settings: Optimisation, folder: str, mixed: bool = False
) -> tuple[Seconds, list[float]]:
    """Seconds of training (without building the Trainer), and the loss of each step."""
    rows = [{"input_ids": s.input_ids, "attention_mask": [1] * len(s.input_ids), "labels": s.labels} for s in sequences]
    steps = -(-len(rows) // settings.batch_size) * settings.epochs
    optimizer = torch.optim.AdamW(
        loaded.model.parameters(), lr=settings.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
    )
    schedule = LambdaLR(optimizer, lambda step: learning_rate_at(step, steps, settings) / settings.learning_rate)
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        max_grad_norm=settings.max_gradient_norm,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        use_cpu=loaded.device.type == "cpu",
        bf16=mixed,
        dataloader_pin_memory=False,
        seed=SEED,
    )
    trainer = RecordingTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=rows,
        data_collator=collate,
        optimizers=(optimizer, schedule),
    )
    clock = Clock()
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    seconds = clock.read()
    return seconds, [float(loss) for loss in trainer.losses]


def measure(base: LoadedModel, sequences: list[TrainingSequence], batch_size: int, folder: str, given: Any) -> bool:
    """Print one line for a batch size; returns whether it is good."""
    rate = 1e-5 if given.model else 2e-3
    settings = Optimisation(epochs=given.epochs, learning_rate=rate, batch_size=batch_size, loss="full")
    speeds: dict[str, list[Seconds]] = {"ours": [], "Trainer": []}
    curves: dict[str, list[float]] = {}
    for _ in range(given.rounds + 1):
        for name in speeds:
            loaded = copy.copy(base)
            loaded.model = copy.deepcopy(base.model)
            if name == "ours":
                seconds, curves[name] = run_ours(loaded, sequences, settings)
            else:
                seconds, curves[name] = run_trainer(loaded, sequences, settings, folder)
            read = len(sequences) * given.epochs
            speeds[name].append((read / seconds[0], read / seconds[1]))
            del loaded
    difference = max(abs(a - b) for a, b in zip(curves["ours"], curves["Trainer"], strict=True))
    ratios = []
    for clock, words in enumerate(("wall", "CPU time")):
        ours, theirs = ([run[clock] for run in speeds[name][1:]] for name in ("ours", "Trainer"))  # the first warms up
        ratios.append(statistics.median(ours) / statistics.median(theirs))
        by_round = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"batch {batch_size:2d}, {words:8s}: ours {statistics.median(ours):6.4g} facts/s, Trainer "
            f"{statistics.median(theirs):6.4g}, ratio {ratios[-1]:.2f} (rounds {by_round[0]:.2f} to {by_round[-1]:.2f})"
        )
    first, *_, last = curves["ours"]
    print(f"    largest difference of the loss curves {difference:.1e} (they go from {first:.2f} to {last:.2f})")
    return ratios[0] >= NEEDED and difference < CURVES_AGREE


def main() -> int:
    """Run the comparison; 0 when it is good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--facts", type=int, default=FACTS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        embedded = (EMBEDDED_WEIGHTS / "model.safetensors").is_file()
        shipped = arguments.model or ("embedded" if embedded else None)
        chosen = shipped_experiment(shipped) if shipped else random_experiment(Path(folder))
        base = load_base(chosen)
        sequences = stage1_sequences(chosen, base)[: arguments.facts]
        print(
            f"{shipped or 'a random model of the shape of the embedded base'}, "
            f"{base.causal.num_parameters() / 1e6:.1f}M parameters, {torch.get_num_threads()} thread(s), "
            f"{len(sequences)} facts of {sum(len(s.input_ids) for s in sequences) / len(sequences):.1f} tokens, "
            f"{arguments.epochs} epochs, "
            f"median of {arguments.rounds} rounds after a warm-up"
        )
        good = [measure(base, sequences, size, folder, arguments) for size in arguments.batches]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
