"""What a run asks of a cluster: the devices that it trains on, and the files that it begins with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.attack.experiment import NO_DEFENCE, Cell
from engine.experiment import Experiment
from engine.hardware import MAX_THREADS, SMALL_MODEL_PARAMETERS, asked_device
from engine.models.files import model_shape
from engine.models.folders import names_in, whole
from storage.answers import ANSWERS_NAME
from storage.carrying import runs_beside
from storage.folders import attack_folder, checkpoint_folder, checkpoint_place, run_folder
from storage.runs import Run, get_run


@dataclass(frozen=True)
class Devices:
    """Processors and GPUs of one machine. threads: of each process that trains on processors."""

    cpus: int
    gpus: int
    threads: int

    @property
    def words(self) -> str:
        """As in: waiting for 2 GPUs."""
        count, name = (self.gpus, "GPU") if self.gpus else (self.cpus, "processor")
        return f"{count} {name}{'' if count == 1 else 's'}"

    @property
    def environment(self) -> dict[str, str]:
        """By which training keeps to them."""
        return {} if self.gpus else {"ROTE_LAB_THREADS": str(self.threads), "ROTE_LAB_DEVICE": "cpu"}


def devices_of(experiment: Experiment, nodes: list[dict[str, Any]]) -> Devices:
    """What a run of the experiment needs on one of these machines (as `ray.nodes` lists them).

    GPUs where the cluster has some, unless ROTE_LAB_DEVICE says cpu; else as many processors as its training has
    threads: ROTE_LAB_THREADS, one for a small model, else all of the largest machine up to eight.
    """
    resources = [node.get("Resources", {}) for node in nodes] or [{}]
    count = experiment.devices
    if asked_device() != "cpu" and any(machine.get("GPU", 0) >= 1 for machine in resources):
        return Devices(1, count, 1)
    largest = int(max(machine.get("CPU", 0) for machine in resources)) or 1
    threads = _threads(experiment.model, largest // count)
    return Devices(threads * count, 0, threads)


def _threads(model: str, most: int) -> int:
    asked = os.environ.get("ROTE_LAB_THREADS", "").strip()
    if asked.isdecimal():
        return max(1, int(asked))
    shape = model_shape(model)
    if shape is not None and shape.parameters < SMALL_MODEL_PARAMETERS:
        return 1
    return max(1, min(most, MAX_THREADS))


def units_of(db: Database, home: Path, run: Run, experiment: Experiment) -> Iterator[str]:
    """Places, in the lab's home, of what the run begins with: what it has, and what it takes over from others."""
    mine = run_folder(home, run.id)
    places = [mine / "base_text.json", mine / ANSWERS_NAME]
    if base := checkpoint_place(home, Path(experiment.model)):  # an experiment with facts that come later
        places.append(home / base)
    places += [*_folders(mine / "checkpoints"), *_folders(mine / "resume")]
    if run.attack:
        places += _attacked(home, run)
    else:
        memorises = run.cell["memorises"] if run.cell else None
        wanted = {f"memorised@{epoch}" for epoch in experiment.stage1.saved_epochs}
        wanted -= {place.name for place in _folders(mine / "checkpoints")}
        for other in runs_beside(db, run):
            folder = run_folder(home, other)
            places.append(folder / ANSWERS_NAME)
            if (get_run(db, other).cell or {}).get("memorises") == memorises:
                there = [checkpoint_folder(folder, name) for name in sorted(wanted)]
                there = [place for place in there if whole(place)]
                places += there
                wanted -= {place.name for place in there}
    for place in places:
        if place.is_file() or whole(place):
            yield place.relative_to(home).as_posix()


def _attacked(home: Path, run: Run) -> list[Path]:
    """Of the run that a cell attacks: what it kept and replayed; and the cell's start, if that was hardened before."""
    cell, folder = Cell.model_validate(run.cell), run_folder(home, run.needs or "")
    kept = [place for place in _folders(folder / "checkpoints") if cell.start != "base"]
    hardened = attack_folder(home, run.attack or "") / f"{cell.defence}-{cell.seed}"
    return [folder / "base_text.json", *kept, *([hardened] if cell.defence != NO_DEFENCE else [])]


def _folders(parent: Path) -> list[Path]:
    """Checkpoints in a folder by their names, also one that a killed replacement had just moved aside."""
    if not parent.is_dir():
        return []
    return [parent / name for name in names_in(parent) if whole(parent / name)]
