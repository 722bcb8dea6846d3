"""Where a run, and an attack, keep their files.

HOME/runs/ID/run.json              what was run, on what
HOME/runs/ID/log.txt               everything the training process printed
HOME/runs/ID/answers.db            every single answer
HOME/runs/ID/base_text.json        the base's own text that it replays, or is held against
HOME/runs/ID/checkpoints/NAME/     memorised@3, generalised@3, …
HOME/runs/ID/resume/STAGE/         the newest epoch of a stage that is under way
HOME/runs/ID/.arriving/            what comes from a machine of a cluster and is not whole yet
HOME/runs/ID/damaged/NAME/         what was found damaged and set aside; may be deleted
HOME/recordings.lock               while recordings that come with the lab are taken in, and `disk --clean` deletes
HOME/attacks/ID/                   what the cells of an attack share: starts that a defence has hardened
HOME/base_text/KEY.json            what a base wrote, for all runs that ask it alike; may be deleted, is written again
"""

from __future__ import annotations

import os
from pathlib import Path

LOG_BYTES = 200_000


def run_folder(home: Path, run_id: str) -> Path:
    """The folder of one run. Raises ValueError for anything that is not a run's id."""
    if not run_id.isalnum():
        raise ValueError(f"‘{run_id}’ is not the id of a run")
    return home / "runs" / run_id


def checkpoint_place(home: Path, path: Path) -> str | None:
    """The place in the lab's home of a run's checkpoint, `runs/3f9a1c2e/checkpoints/generalised@1`, given by its whole
    path; None for any other path."""
    checkpoints = path.parent
    if checkpoints.name != "checkpoints" or checkpoints.parent.parent != home.resolve() / "runs":
        return None
    return path.relative_to(home.resolve()).as_posix()


def attack_folder(home: Path, attack: str) -> Path:
    """The folder of what the cells of one attack share. Raises ValueError for anything that is not an attack's id."""
    if not attack.isalnum():
        raise ValueError(f"‘{attack}’ is not the id of an attack")
    return home / "attacks" / attack


def checkpoint_folder(folder: Path, name: str) -> Path:
    """The folder of one kept checkpoint of the run in `folder`."""
    return folder / "checkpoints" / name


def resume_folder(folder: Path, stage: str) -> Path:
    """The folder of the newest epoch of a stage that is under way."""
    return folder / "resume" / stage


def base_text_file(folder: Path) -> Path:
    """The file of the base's own text that the run in `folder` uses."""
    return folder / "base_text.json"


def shared_base_text_file(folder: Path, key: str) -> Path:
    """The file of what a base wrote, for all runs beside the one in `folder`."""
    return folder.parent.parent / "base_text" / f"{key}.json"


def damaged_folder(folder: Path) -> Path:
    """The folder of what was found damaged in the run in `folder` and set aside."""
    return folder / "damaged"


def recordings_lock(home: Path) -> Path:
    """The file that is held while recordings are taken in, and while folders that nobody has are deleted."""
    return home / "recordings.lock"


def log_lines(log: Path, start: int = 0) -> list[str]:
    """The lines of a log's last `LOG_BYTES` bytes, from its byte `start` on; none while there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - LOG_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
