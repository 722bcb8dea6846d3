"""Checkpoints written while an accelerator trains on: copied to main memory at one moment, and to the disk after it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from peft import PeftModel

from engine.models.loading import LoadedModel
from engine.models.whole_model import model_of


class Writer:
    """One thing is written at a time, in a thread. Who hands over the next one waits for the last."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def write(self, job: Callable[[], None]) -> None:
        """Begin with `job`. Raises what went wrong with the one before, such as a full disk."""
        self.wait()
        self._pending = self._pool.submit(job)

    def wait(self) -> None:
        """Until everything is on the disk. Raises what went wrong."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def is_worth_it(loaded: LoadedModel) -> bool:
    """Whether a copy in main memory takes nothing from the training: on an accelerator. Adapters are small anyway."""
    return loaded.device.type != "cpu" and not isinstance(loaded.model, PeftModel)


def copied(loaded: LoadedModel) -> LoadedModel:
    """The model as a checkpoint holds it, in main memory: what is trained further does not change it."""
    kept = loaded.kept_dtype or loaded.causal.dtype
    weights = {
        name: p.detach().to("cpu", kept if p.is_floating_point() else p.dtype, copy=True)
        for name, p in loaded.causal.named_parameters()
    }
    return replace(loaded, model=model_of(loaded.causal, weights), kept_dtype=None, key_rows=None)


def copied_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same for the optimizer's state and float32 weights."""
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
