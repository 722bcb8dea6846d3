"""Where a cell starts: the base model, or a checkpoint of the run it attacks, and what a defence made of that.

Adapters are merged into their base, so that attacks and defences work on whole weights, however the run was trained.
A hardened start is made once for each defence and seed and shared by all cells of the attack.
"""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock
from peft import PeftModel

from engine.attack.context import Context
from engine.attack.defences import defences
from engine.attack.experiment import NO_DEFENCE
from engine.models.checksums import damage
from engine.models.folders import replaced, whole
from engine.models.loading import LoadedModel, load_base, load_checkpoint, save_model

HARDEN_SECONDS = 6 * 3600
SECONDS = "seconds.txt"


def load_merged(context: Context, name: str) -> LoadedModel:
    """A checkpoint of the attacked run as a whole model without adapters. Raises ModelError when it is not there."""
    return merged(load_checkpoint(context.base, context.checkpoint(name)))


def merged(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapters added to its weights, in place; others as they are."""
    if isinstance(loaded.model, PeftModel):
        loaded.model = loaded.model.merge_and_unload().eval()
    loaded.model.requires_grad_(True)
    return loaded


def load_start(context: Context) -> LoadedModel:
    """The cell's start without any defence. Raises ModelError."""
    if context.cell.start == "base":
        return merged(load_base(context.base))
    return load_merged(context, f"{context.cell.start}@{context.attack.start_epoch(context.base)}")


def load_hardened(context: Context, shared: Path) -> tuple[LoadedModel, float]:
    """The cell's start, hardened by its defence where that changes weights, and the seconds which that took.

    shared: the folder of the attack, in which it is kept as DEFENCE-SEED.
    """
    defence = defences()[context.cell.defence] if context.cell.defence != NO_DEFENCE else None
    if defence is None or defence.harden is None:
        return load_start(context), 0.0
    folder = shared / f"{defence.name}-{context.cell.seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=HARDEN_SECONDS):
        kept = whole(folder)
        if kept is None or damage(kept):
            loaded, started = load_start(context), time.monotonic()
            defence.harden(context, loaded)
            with replaced(folder) as new:
                save_model(loaded, new)
                (new / SECONDS).write_text(f"{time.monotonic() - started:.3f}")
    found = whole(folder) or folder
    return merged(load_checkpoint(context.base, found)), float((found / SECONDS).read_text())
