"""One run in words: what a row of a list and the head of a page say about it."""

from __future__ import annotations

from typing import Any

from app.shared.render import between, duration, figure
from app.shared.words import STATES
from storage.runs import Run

HEADLINE_SPLITS = ("train", "test", "unrelated")


def row_of(run: Run, workers: bool) -> dict[str, Any]:
    """What the templates need to know about a run. `workers`: whether any worker is alive."""
    sign, label = STATES[run.state]
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state.value,
        "sign": sign,
        "label": label,
        "model": run.model,
        "seed": run.seed,
        "created_at": run.created_at,
        "took": between(run.started_at, run.finished_at),
        "error": run.error,
        "percent": progress_percent(run),
        "words": progress_words(run, workers),
        "headline": headline_of(run),
        "active": run.state in ("queued", "running", "stopping"),
        "partial": bool(run.started_at),
        "attack": run.attack,
        "cell": run.cell,
    }


def progress_percent(run: Run) -> int | None:
    """How far a run is, in percent; None when it does not tell."""
    fraction = run.progress.get("fraction")
    if not isinstance(fraction, int | float):
        return None
    return round(100 * min(1.0, max(0.0, fraction)))


def progress_words(run: Run, workers: bool) -> str:
    """What a run that has not ended is doing: `Memorising: epoch 7 of 20 · loss 0.31 · 40 s left`."""
    if run.state == "queued":
        return "Waits for its turn" if workers else "Waits for a worker: none is running"
    if run.ended:
        return ""
    told = run.progress
    parts = [str(told.get("message") or _doing(told))]
    if isinstance(told.get("loss"), int | float):
        parts.append(f"loss {figure(told['loss'])}")
    if run.state == "stopping":
        return " · ".join(["Stops after the current step", *parts[:1]])
    if isinstance(told.get("seconds_left"), int | float):
        parts.append(f"{duration(told['seconds_left'])} left")
    return " · ".join(parts)


def _doing(told: dict[str, Any]) -> str:
    stage = str(told.get("stage") or "")
    verb = "Memorising" if stage == "stage1" else "Generalising" if stage.startswith("stage2") else "Evaluating"
    if not stage:
        return "Starting"
    if told.get("epoch") and told.get("epochs"):
        return f"{verb}: epoch {told['epoch']} of {told['epochs']}"
    return verb


def headline_of(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """The headline figures worth a place in a row, in a fixed order."""
    return [(split, run.headline[split]) for split in HEADLINE_SPLITS if split in run.headline]
