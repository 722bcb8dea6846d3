"""A lab that is opened for the first time has something to look at.

The quick preset waits in the queue, and after it the short attack on what it memorised, whose models can be asked
live. The numbers of whole attacks, which take half an hour and more, were recorded before and are there at once.
"""

from __future__ import annotations

from pathlib import Path

from app.shared.lab import Lab
from engine.attack.experiment import AttackExperiment
from engine.attack.presets import ATTACKS
from engine.corpus.resolve import resolve
from engine.execution.attacks.queue import queue_attack
from engine.execution.attacks.recording import SHIPPED as ATTACKS_SHIPPED
from engine.execution.attacks.recording import restore
from engine.execution.recorded.restore import SHIPPED as RUNS_SHIPPED
from engine.execution.recorded.restore import restore_all
from engine.models.source import EMBEDDED
from engine.presets import load_preset
from storage.attacks import list_attacks
from storage.database import now
from storage.runs import Run, add_run, count_runs

PRESET = "quick"
STORY = "story"
MARK = "first-start.txt"
NOTED = "its attack on that run: "
TO_COME = "the recorded attack is to come"
HERE = "the recorded attack {}: "
HERE_OF_OLD = "the recorded attack: "  # where there was but that on the embedded base


def queue_first_run(lab: Lab) -> Run | None:
    """Queue the quick preset once in the life of a home folder; None when that was done before or runs exist."""
    lab.home.mkdir(parents=True, exist_ok=True)
    try:
        with (lab.home / MARK).open("x", encoding="utf-8") as file:
            file.write(f"The lab was first opened at {now()}; the default experiment is queued only this once.\n")
    except FileExistsError:
        return None
    if count_runs(lab.db):
        return None
    plan = resolve(load_preset(PRESET))
    run = add_run(lab.db, name=plan.name, experiment=plan.model_dump(mode="json"), model=plan.model, seed=plan.seed)
    # The story's own base run would be this one again.
    story = ATTACKS.load(STORY).model_dump() | {"run": run.id, "experiment": PRESET, "seeds": [run.seed]}
    attack = queue_attack(lab.db, AttackExperiment.from_data(story))
    with (lab.home / MARK).open("a", encoding="utf-8") as file:
        file.write(f"{NOTED}{attack}\n{TO_COME}\n")
    return run


def bring_recorded_attacks(lab: Lab, folder: Path = ATTACKS_SHIPPED) -> None:
    """Put the recorded attacks into a lab, each once: at its first start, and those that came with an upgrade.

    What a start that was cut off left is replaced. Takes seconds: not to be waited for.
    """
    noted = _noted(lab.home)
    if TO_COME not in noted:
        return
    there = {source: _restored(noted, source) for source in sorted(folder.glob("*.json.xz"))}
    whole = set(there.values())
    for attack in list_attacks(lab.db):
        if attack.recorded and attack.id not in whole:
            lab.delete_attack(attack.id)
    for source in (source for source, attack in there.items() if attack is None):
        restored = restore(lab.db, lab.home, source) or "none for these weights"
        with (lab.home / MARK).open("a", encoding="utf-8") as file:
            file.write(f"{HERE.format(_name(source))}{restored}\n")


def _name(source: Path) -> str:
    return source.name.removesuffix(".json.xz")


def _restored(noted: list[str], source: Path) -> str | None:
    """What was noted when this recording was put into the lab; None when that was not done."""
    starts = (HERE.format(_name(source)), *([HERE_OF_OLD] if _name(source) == EMBEDDED else []))
    return next((line.removeprefix(start) for start in starts for line in noted if line.startswith(start)), None)


def bring_recorded_runs(lab: Lab, folder: Path = RUNS_SHIPPED) -> None:
    """Put the recorded runs that came with the lab into it, those that it has not had yet: at the first start, and
    after an upgrade. Takes seconds where there are such: not to be waited for."""
    restore_all(lab.db, lab.home, folder)


def made_at_first_start(home: Path, attack: str) -> bool:
    """Whether the lab queued this attack itself when it was first opened."""
    return f"{NOTED}{attack}" in _noted(home)


def _noted(home: Path) -> list[str]:
    try:
        return (home / MARK).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
