"""Which models can be served: the base, and every kept checkpoint of a run; what each is called and where it lies.

    served = served_models(home, run)          # [base, memorised@3, …, generalised@20]
    served_model(home, run, "generalised@20")

Knows no torch. A page's user names runs and checkpoints only; every folder comes from here and lies in `home`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.checks import shorten
from engine.experiment import Experiment
from engine.models.folders import whole
from engine.models.identity import base_key, changed_base, gone_base, is_base, is_gone, noted_base
from storage.checkpoints import BASE, KINDS, CheckpointName
from storage.folders import checkpoint_folder, run_folder
from storage.runs import NO_MODEL, Run

Kind = Literal["base", "adapter", "full"]
BASE_NAME = re.compile(r"base-([0-9a-f]{12})")
ADAPTER_CONFIG = "adapter_config.json"


class NotServable(ValueError):
    """There is no such model to serve; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as a server offers it.

    name: what requests call it: `base-KEY` for a base, `RUN/memorised@20`, `RUN/generalised@20`. Every server also
    knows its (first) base as plain `base`.
    run, checkpoint: where it comes from; checkpoint is `base`, `memorised@E` or `generalised@E`;
        of an attack's cell `attacked@N`, N its attack facts.
    kind: `base`; `adapter` (LoRA, on the base of the same `base` key); `full` (a checkpoint of its own).
    folder: the weights. For a base it is HOME/prepared/KEY, which `engine.serving.prepared.prepare_base` fills.
    prepared: the folder of its base, which need not have been made yet; models with the same one fit on one server.
    tokenizer: a tokenizer.json that holds the run's key tokens.
    lost: why it cannot be served any more, a sentence; '' for all that can.
    beside_full: of a base, whether its run keeps full fine-tunes.
    source: the experiment's model, from which the base is prepared.
    """

    name: str
    run: str
    checkpoint: str
    kind: Kind
    folder: Path
    prepared: Path
    tokenizer: Path
    lost: str = ""
    beside_full: bool = False
    source: str = ""

    @property
    def base(self) -> str:
        """The key of its base."""
        return self.prepared.name


def served_models(home: Path, run: Run) -> list[ServedModel]:
    """The base, then every checkpoint of the run in the order of training: each stage 1 epoch before what stage 2
    made of it. Raises NotServable for a recording, or when the run's experiment cannot be read."""
    if run.recorded:
        raise NotServable(NO_MODEL)
    try:
        experiment = Experiment.from_record(run.experiment)
    except ValueError as error:
        raise NotServable(f"the experiment of run {run.id} cannot be read: {error}") from error
    key = run_base_key(home, run.id, experiment)
    base, lost = prepared_folder(home, key), lost_base(home, run.id, experiment, unread=True)
    models, source = [], experiment.model
    for name in checkpoint_names(home, run.id):
        folder = _existing(checkpoint_folder(run_folder(home, run.id), name))
        kind: Kind = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "full"
        file, gone = folder / "tokenizer.json", lost if kind == "adapter" else ""
        models.append(ServedModel(f"{run.id}/{name}", run.id, name, kind, folder, base, file, gone, source=source))
    # A checkpoint's tokenizer is the prepared base's own, and is there also before that base is.
    tokenizer = models[0].tokenizer if models else base / "tokenizer.json"
    full = any(model.kind == "full" for model in models)
    return [ServedModel(f"{BASE}-{key}", run.id, BASE, "base", base, base, tokenizer, lost, full, source), *models]


def served_model(home: Path, run: Run, checkpoint: str) -> ServedModel:
    """One of `served_models`. Raises NotServable for a checkpoint that is not there, with those that are."""
    models = served_models(home, run)
    for model in models:
        if model.checkpoint == checkpoint:
            return model
    there = ", ".join(m.checkpoint for m in models)
    again = f", or make it again with `rote-lab retry {run.id}`" if CheckpointName.kept(checkpoint) else ""
    raise NotServable(f"run {run.id} has no checkpoint ‘{shorten(checkpoint)}’: choose one of {there}{again}")


def usual_columns(models: Sequence[ServedModel]) -> list[ServedModel]:
    """Base, last stage 1 epoch, last stage 2: the columns of a page that nobody has changed."""
    last = {CheckpointName.parse(m.checkpoint).kind: m for m in models}
    return [last[kind] for kind in KINDS if kind in last]


def checkpoint_names(home: Path, run_id: str) -> list[str]:
    """The checkpoints of a run that lie on the disk, in the order of training."""
    try:
        paths = list((run_folder(home, run_id) / "checkpoints").iterdir())
    except (OSError, ValueError):
        return []
    # A folder that is just being replaced lies beside its place under another name, which `whole` knows.
    names = {p.name.removeprefix(".").removesuffix(".old") for p in paths}
    kept = {name: parts for name in names if (parts := CheckpointName.kept(name))}
    return sorted(kept, key=lambda name: (kept[name].epoch, kept[name].kind == "generalised"))


def run_base_key(home: Path, run_id: str, experiment: Experiment) -> str:
    """The key of the base that the run was trained on, which need not be the one its experiment names today.

    Runs of before this was noted, and those without a checkpoint yet, have today's.
    """
    for name in checkpoint_names(home, run_id):
        if key := noted_base(_existing(checkpoint_folder(run_folder(home, run_id), name))):
            return key
    return base_key(experiment)


def lost_base(home: Path, run_id: str, experiment: Experiment, *, unread: bool = False) -> str:
    """Why the run's base cannot be prepared any more, as a sentence; '' while it is there or can be.

    unread: as of `engine.models.identity.is_base`, for who must not wait while gigabytes are read.
    """
    key = run_base_key(home, run_id, experiment)
    if whole(prepared_folder(home, key)) is not None or is_base(key, experiment, unread=unread):
        return ""
    if is_gone(experiment):
        return f"run {run_id} cannot be asked: {gone_base(experiment.model)}"
    return (
        f"run {run_id} was trained on {changed_base(experiment.model)}: its adapters and its base cannot be asked any "
        "more, so run the experiment again"
    )


def prepared_folder(home: Path, key: str) -> Path:
    """Where the prepared base of that key lies, or will lie."""
    return home / "prepared" / key


def _existing(folder: Path) -> Path:
    return whole(folder) or folder
