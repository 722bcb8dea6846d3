"""Which server answers for which model: vLLM or the embedded one, and what each process of them serves.

choice = choose("auto", model)             # backend and reason
plan = plan_for(choice, model)             # what a process has to be started with
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from engine.hardware import Gpu, device_key, serving_device
from engine.serving import embedded
from engine.serving.processes.placement import placed
from engine.serving.served import ServedModel
from engine.serving.vllm import backend as vllm_backend

Backend = Literal["auto", "vllm", "embedded"]
BACKENDS = get_args(Backend)


class CannotServe(ValueError):
    """The backend that was asked for cannot run here or cannot serve this model; one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """vllm or embedded, and why, as a clause without a full stop."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One server process. serves: '' for every model of the home, else the base's key or RUN/CHECKPOINT.

    run: whose prepared base has to be there first, None where none is needed. folder, names: the weights and what
    requests call them. rank: the largest rank of adapters, None for no adapters. gpus, part: as in `Placement`.
    listed: the run whose models the embedded server lists from the start, and whose base is plain `base` there.
    """

    backend: str
    serves: str
    folder: Path | None = None
    names: tuple[str, ...] = ()
    run: str | None = None
    rank: int | None = None
    gpus: tuple[Gpu, ...] = ()
    part: float = 0.0
    listed: str | None = None

    def command(self, home: Path, port: int) -> list[str]:
        """The command line. Raises ValueError when the weights' description cannot be read."""
        if self.folder is None:
            words = [sys.executable, "-m", embedded.SERVER, "--home", str(home), "--port", str(port)]
            return [*words, "--run", self.listed] if self.listed else words
        return vllm_backend.command(
            self.folder, list(self.names), port, rank=self.rank, part=self.part, gpus=max(1, len(self.gpus))
        )

    def environment(self) -> dict[str, str] | None:
        """The environment, None for this process's own."""
        return None if self.folder is None else vllm_backend.environment(self.folder, serving_device(), self.gpus)

    def devices(self) -> tuple[str, ...]:
        """The names under which its devices are held, as `device_key` gives them."""
        return tuple(gpu.uuid for gpu in self.gpus) or (device_key(serving_device()),)


def default_backend() -> Backend:
    """ROTE_LAB_SERVER (auto, vllm or embedded), else auto. Raises CannotServe when it is something else."""
    asked = os.environ.get("ROTE_LAB_SERVER", "").strip() or "auto"
    if asked not in BACKENDS:
        raise CannotServe(f"ROTE_LAB_SERVER is ‘{asked}’: set it to one of {', '.join(BACKENDS)}, or unset it")
    return asked  # type: ignore[return-value]


def choose(asked: Backend, model: ServedModel) -> Choice:
    """The backend for a model. Raises CannotServe when `vllm` was asked for and cannot be."""
    if asked == "embedded":
        return Choice("embedded", "it was asked for")
    problem = vllm_backend.why_not() or _unfit(model)
    if asked == "vllm":
        if problem:
            raise CannotServe(f"{problem}: take the embedded server (--backend embedded)")
        return Choice("vllm", "it was asked for")
    if problem:
        return Choice("embedded", problem)
    if vllm_backend.is_cpu_build() and (model.kind == "full" or model.beside_full):
        # All columns of a run come from one server.
        return Choice(
            "embedded",
            "full fine-tunes stand side by side in it; vLLM would need a process of its own, with "
            f"{vllm_backend.PROCESS_GIB:g} GiB, for each checkpoint",
        )
    return Choice("vllm", f"vLLM {vllm_backend.installed()} is installed")


def plan_for(choice: Choice, model: ServedModel, taken: Callable[[Gpu], float] = lambda gpu: 0.0) -> Plan:
    """The process that serves the model; `taken`: what others have of a GPU. Raises CannotServe."""
    if choice.backend == "embedded":
        return Plan("embedded", "")
    place = placed(model, taken)
    if model.kind == "full":
        return Plan("vllm", model.name, model.folder, (model.name,), gpus=place.gpus, part=place.part)
    names = (f"base-{model.base}", "base")
    return Plan("vllm", model.base, model.prepared, names, model.run, _rank(model), place.gpus, place.part)


def _rank(model: ServedModel) -> int:
    try:
        return vllm_backend.rank_for(model.folder if model.kind == "adapter" else None)
    except ValueError as error:
        raise CannotServe(str(error)) from error


def _unfit(model: ServedModel) -> str | None:
    try:
        _rank(model)
    except CannotServe as error:
        return str(error)
    if not placed(model).fits:
        return "its weights, and what vLLM needs beside them, do not fit on the GPU"
    return None
