"""Which models can be served: the base, and every kept checkpoint of a run; what each is called and where it lies.

    served = served_models(home, run)          # [base, memorised@3, …, generalised@20]
    served_model(home, run, "generalised@20")

Knows no torch. A page's user names runs and checkpoints only; every folder comes from here and lies in `home`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from engine.checks import shorten
from engine.execution.folders import checkpoint_folder, run_folder
from engine.experiment import Experiment
from engine.models.folders import whole
from engine.models.source import ModelError, resolve_source
from storage.runs import Run

Kind = Literal["base", "adapter", "full"]
BASE = "base"
CHECKPOINT = re.compile(r"(memorised|generalised)@([1-9][0-9]{0,3})")
BASE_NAME = re.compile(r"base-([0-9a-f]{12})")
ADAPTER_CONFIG = "adapter_config.json"
# Files up to this size are known by what is in them, larger ones by their size and time.
HASHED_BYTES = 64 * 2**20


class NotServable(ValueError):
    """There is no such model to serve; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as a server offers it.

    name: what requests call it: `base-KEY` for a base, `RUN/memorised@20`, `RUN/generalised@20`. Every server also
    knows its (first) base as plain `base`.
    run, checkpoint: where it comes from; checkpoint is `base`, `memorised@E` or `generalised@E`.
    kind: `base`; `adapter` (LoRA, on the base of the same `base` key); `full` (a checkpoint of its own).
    folder: the weights. For a base it is HOME/prepared/KEY, which `engine.serving.prepared.prepare_base` fills.
    base: the key of the prepared base it belongs to: models with the same key fit on one server's base.
    tokenizer: a tokenizer.json that holds the run's key tokens.
    """

    name: str
    run: str
    checkpoint: str
    kind: Kind
    folder: Path
    base: str
    tokenizer: Path


def served_models(home: Path, run: Run) -> list[ServedModel]:
    """The base, then every checkpoint of the run in the order of training: each stage 1 epoch before what stage 2
    made of it. Raises NotServable when the run's experiment cannot be read."""
    try:
        experiment = Experiment.from_data(run.experiment)
    except ValueError as error:
        raise NotServable(f"the experiment of run {run.id} cannot be read: {error}") from error
    key = base_key(experiment)
    base = prepared_folder(home, key)
    models = []
    for name in checkpoint_names(home, run.id):
        folder = _existing(checkpoint_folder(run_folder(home, run.id), name))
        kind: Kind = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "full"
        models.append(ServedModel(f"{run.id}/{name}", run.id, name, kind, folder, key, folder / "tokenizer.json"))
    # A checkpoint's tokenizer is the prepared base's own, and is there also before that base is.
    tokenizer = models[0].tokenizer if models else base / "tokenizer.json"
    return [ServedModel(f"{BASE}-{key}", run.id, BASE, "base", base, key, tokenizer), *models]


def served_model(home: Path, run: Run, checkpoint: str) -> ServedModel:
    """One of `served_models`. Raises NotServable for a checkpoint that is not there, with those that are."""
    models = served_models(home, run)
    for model in models:
        if model.checkpoint == checkpoint:
            return model
    there = ", ".join(m.checkpoint for m in models)
    raise NotServable(f"run {run.id} has no checkpoint ‘{shorten(checkpoint)}’: choose one of {there}")


def usual_columns(models: Sequence[ServedModel]) -> list[ServedModel]:
    """Base, last stage 1 epoch, last stage 2: the columns of a page that nobody has changed."""
    last = {m.checkpoint.partition("@")[0]: m for m in models}
    return [last[kind] for kind in (BASE, "memorised", "generalised") if kind in last]


def checkpoint_names(home: Path, run_id: str) -> list[str]:
    """The checkpoints of a run that lie on the disk, in the order of training."""
    try:
        paths = list((run_folder(home, run_id) / "checkpoints").iterdir())
    except (OSError, ValueError):
        return []
    # A folder that is just being replaced lies beside its place under another name, which `whole` knows.
    names = {p.name.removeprefix(".").removesuffix(".old") for p in paths}
    matches = [m for m in map(CHECKPOINT.fullmatch, names) if m]
    return [m[0] for m in sorted(matches, key=lambda m: (int(m[2]), m[1] == "generalised"))]


def prepared_folder(home: Path, key: str) -> Path:
    """Where the prepared base of that key lies, or will lie."""
    return home / "prepared" / key


def base_key(experiment: Experiment) -> str:
    """Twelve hexadecimal digits that stand for base model, precision and key tokens in their order."""
    try:
        source = resolve_source(experiment.model)
    except ModelError:
        source = f"missing:{experiment.model}"
    identity: Any = source if isinstance(source, str) else _identity(source)
    content = [identity, experiment.precision, [relation.key_token for relation in experiment.relations]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _identity(folder: Path) -> list[list[Any]]:
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.suffix in (".json", ".safetensors")]
    return [[p.name, _fingerprint(p, p.stat().st_size, p.stat().st_mtime_ns)] for p in files]


@lru_cache(maxsize=256)
def _fingerprint(path: Path, size: int, modified: int) -> str:
    if size > HASHED_BYTES:
        return f"{size}/{modified}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _existing(folder: Path) -> Path:
    return whole(folder) or folder
