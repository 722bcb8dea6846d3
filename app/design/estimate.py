"""What a run will cost, in words, by earlier runs of the same model and method where the lab has finished some."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import constants

from app.design.hub_sizes import HubSizes
from app.design.shorter import Suggestion, suggestions
from app.shared.lab import Lab
from app.shared.render import duration
from engine.estimate import Estimate, estimate_experiment
from engine.execution.paces import earlier_paces
from engine.experiment import Experiment
from engine.hardware import device_gib, serving_device, visible_gpus
from engine.settings import Tuning

LORA = {"tuning": Tuning(method="lora"), "devices": 1}
EIGHT_BITS = {"an optimizer of 8 bits": {"tuning": Tuning(optimizer="adamw 8-bit"), "devices": 1}}
# What of a run's time is said to be its largest part.
PART_WORDS = {
    "loading": "loading the model",
    "stage 1": "stage 1",
    "stage 2": "stage 2",
    "questions": "asking {checkpoints} checkpoints",
    "multiple choice": "the multiple choice",
}


@dataclass(frozen=True)
class Told:
    """The estimate as rows of (what, how much), and what would make the run shorter."""

    rows: list[tuple[str, str]]
    shorter: list[Suggestion]


def estimate_for(lab: Lab, resolved: Experiment, sizes: HubSizes) -> Told:
    """The estimate of a resolved experiment."""
    estimate = partial(estimate_experiment, paces=earlier_paces(lab.db, resolved))
    found = estimate(resolved)
    rows = estimate_words(found, len(resolved.checkpoints))
    rows += [_memory(resolved, found, estimate), *_disk(lab, found), *_download(sizes.bytes_of(resolved.model))]
    return Told(rows, suggestions(resolved, found, estimate))


def estimate_words(estimate: Estimate, checkpoints: int = 0) -> list[tuple[str, str]]:
    """An estimate's work and time as rows of (what, how much)."""
    about = "" if estimate.exact_tokens else "about "
    branch = f"{about}{estimate.stage2_tokens:,} tokens in {estimate.stage2_steps:,} steps"
    rows = [
        ("Stage 1", f"{about}{estimate.stage1_tokens:,} tokens in {estimate.stage1_steps:,} steps"),
        ("Stage 2", branch if estimate.branches == 1 else f"{estimate.branches} × {branch}"),
        ("Evaluation", f"{estimate.questions:,} questions, {estimate.choices:,} also as multiple choice"),
        ("Time", _time(estimate)),
        *([("Most of it", largest)] if (largest := _largest(estimate, checkpoints)) else ()),
    ]
    if estimate.parameters:
        rows.insert(0, ("Model", f"{_size(estimate.parameters)} parameters, by {estimate.parameters_from}"))
    return rows


def _memory(experiment: Experiment, estimate: Estimate, estimated: Callable[[Experiment], Estimate]) -> tuple[str, str]:
    """What training takes of the device's memory, and what would fit where that is too much."""
    if not estimate.memory:
        return "Memory", "unknown, as the model's size is"
    device, count = serving_device(), experiment.devices
    there = device_gib(device) * 2**30
    if device.startswith("cpu"):
        whose, there, each = "this machine’s", there / count, f", {count} times" if count > 1 else ""
    else:
        whose, each = "the GPU’s" if count == 1 else "the first GPU’s", f" on each of {count} GPUs" if count > 1 else ""
    if not there or estimate.memory <= there:
        of = f" of {whose} {_bytes(int(there))}" if there and count == 1 else ""
        return "Memory", f"about {_bytes(estimate.memory)}{of}{each}"
    too_much = f"about {_bytes(estimate.memory)}{each}, more than {whose} {_bytes(int(there))}"
    sparing = {"micro_batch_size": 1, "gradient_checkpointing": True}
    small = {stage: getattr(experiment, stage).model_copy(update=sparing) for stage in ("stage1", "stage2")}
    ways = {
        "with one sequence at once, whose layers compute again, it": small,
        **_together(experiment),
        **({} if device.startswith("cpu") else EIGHT_BITS),
        "LoRA": LORA,
        "LoRA with one sequence at once, whose layers compute again,": {**LORA, **small},
    }
    for words, changes in ways.items():
        needed = estimated(experiment.model_copy(update=changes)).memory
        if needed and needed <= there:
            return "Memory", f"{too_much}: {words} would take about {_bytes(needed)}"
    return "Memory", f"{too_much}: choose a smaller model"


def _together(experiment: Experiment) -> dict[str, dict[str, int]]:
    """More of this machine's GPUs, where the experiment can train on several."""
    tuning = experiment.tuning
    if (tuning.method, tuning.optimizer) != ("full", "adamw") or experiment.stage1.replay or experiment.stage2.replay:
        return {}
    most = len(visible_gpus())
    return {f"on {n} GPUs together each": {"devices": n} for n in (2, 4, 8) if experiment.devices < n <= most}


def _time(estimate: Estimate) -> str:
    if not estimate.seconds:
        return "unknown, as the model's size is"
    # Two digits say as much as an estimate knows.
    low, middle, high = (duration(max(1.0, float(f"{seconds:.1e}"))) for seconds in estimate.seconds)
    basis = "by earlier runs of this model" if estimate.from_earlier_runs else "a rough guess for this machine"
    return f"about {middle} ({low} – {high}), {basis}"


def _largest(estimate: Estimate, checkpoints: int) -> str:
    """The largest part of a run's time, where it is much of it."""
    part, seconds = max(estimate.parts.items(), key=lambda item: item[1], default=("", 0.0))
    share = seconds / sum(estimate.parts.values()) if seconds else 0.0
    if share < 0.35:
        return ""
    return f"{PART_WORDS[part].format(checkpoints=checkpoints or 'the')}, {round(100 * share, -1):.0f} %"


def _disk(lab: Lab, estimate: Estimate) -> list[tuple[str, str]]:
    if not estimate.disk:
        return []
    free = shutil.disk_usage(lab.home).free
    enough = f"of {_bytes(free)} free" if free > estimate.disk else f"more than the {_bytes(free)} free: make room"
    return [("Disk", f"about {_bytes(estimate.disk)} for checkpoints, {enough}")]


def _download(size: int | None) -> list[tuple[str, str]]:
    """What comes over the network first, against the disk of the hub's cache."""
    if not size:
        return []
    cache = Path(constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(place for place in (cache, *cache.parents) if place.is_dir())).free
    if free > size:
        return [("Download", f"{_bytes(size)} before it trains, of {_bytes(free)} free")]
    room = f"more than the {_bytes(free)} free in {cache}: make room there, or put HF_HOME elsewhere"
    return [("Download", f"{_bytes(size)} before it trains, {room}")]


def _size(parameters: int) -> str:
    for limit, word in ((1e9, "billion"), (1e6, "million")):
        if parameters >= limit:
            return f"{parameters / limit:.3g} {word}"
    return f"{parameters:,}"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(1, round(number / 1e6))} MB"
