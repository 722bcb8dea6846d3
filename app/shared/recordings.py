"""What the pages say of a recorded run: on what it was made, and how its model is on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from app.shared.lab import Lab
from engine.execution.recorded.restore import here
from engine.models.identity import Here
from storage.recordings import seeds_of
from storage.runs import Run

LOOK_SECONDS = 30.0
_known: dict[str, tuple[float, Here]] = {}


def here_of(run: Run) -> Here | None:
    """How the model of a recorded run is here; None for a run of this lab."""
    return here_now(run.id, lambda: here(run)) if run.recorded else None


def here_now(name: str, look: Callable[[], Here]) -> Here:
    """How the model of a recording of that name is here. Looked for twice a minute at most: pages ask every second."""
    at, found = _known.get(name, (0.0, None))
    if found is None or abs(time.monotonic() - at) > LOOK_SECONDS:
        found = look()
        _known[name] = (time.monotonic(), found)
    return found


def recorded_facts(lab: Lab, run: Run) -> dict[str, Any]:
    """What the template of a recorded run's note needs beside the run: `here`, and its recording's `seeds`."""
    return {"here": here_of(run), "seeds": seeds_of(lab.db, run.recorded["file"]) if run.recorded else []}


def hardware_of(environment: dict[str, Any]) -> str:
    """The processor or GPU that a run of that environment was carried out on, as far as it is known."""
    hardware = environment.get("hardware")
    if not isinstance(hardware, dict) or not hardware.get("name"):
        return ""
    cores = hardware.get("cores")
    return f"{hardware['name']}, {cores} cores" if cores and hardware.get("device") == "cpu" else str(hardware["name"])
