"""Which models can be served: the base, and every kept checkpoint of a run; what each is called and where it lies.

    served = served_models(home, run)          # [base, memorised@3, …, generalised@20]
    served_model(home, run, "generalised@20")

Knows no torch. A page's user names runs and checkpoints only; every folder comes from here and lies in `home`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.experiment import Experiment
from storage.runs import Run

Kind = Literal["base", "adapter", "full"]


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
    """The base, then every complete checkpoint of the run in the order of training, each stage 1 epoch before what
    stage 2 made of it. Raises NotServable when the run has an experiment that cannot be read."""
    raise NotImplementedError


def served_model(home: Path, run: Run, checkpoint: str) -> ServedModel:
    """One of `served_models`. Raises NotServable for a checkpoint that is not there, with those that are."""
    raise NotImplementedError


def usual_columns(models: list[ServedModel]) -> list[ServedModel]:
    """Base, last stage 1 epoch, last stage 2: the columns of a page that nobody has changed."""
    raise NotImplementedError


def base_key(experiment: Experiment) -> str:
    """Twelve hexadecimal digits that stand for base model, precision and key tokens in their order."""
    raise NotImplementedError
