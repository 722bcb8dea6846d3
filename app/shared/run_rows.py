"""One run in words: what a row of a list and the head of a page say about it."""

from __future__ import annotations

from typing import Any

from app.shared.around import Around
from app.shared.recordings import hardware_of
from app.shared.render import between, duration, figure
from app.shared.words import RECORDED, STATES
from storage.runs import Run

HEADLINE_SPLITS = ("train", "test", "unrelated")  # worth a place in a row, in this order
PLAIN = ("id", "name", "model", "seed", "created_at", "error", "attack", "cell", "recorded", "study", "owner")


def row_of(run: Run, around: Around) -> dict[str, Any]:
    """What the templates need to know about a run."""
    sign, label = RECORDED if run.recorded else STATES[run.state]
    return {
        **{name: getattr(run, name) for name in PLAIN},
        "state": run.state.value,
        "sign": sign,
        "label": label,
        "took": between(run.started_at, run.finished_at),
        "percent": progress_percent(run),
        "words": progress_words(run, around),
        "headline": [(split, run.headline[split]) for split in HEADLINE_SPLITS if split in run.headline],
        "owner_name": around.names.get(run.owner or "", ""),
        "waiting": around.waiting.get(run.id),
        "active": not run.ended,
        "partial": bool(run.started_at),
        "hardware": hardware_of(run.environment),
        "badge": "recorded" if run.recorded else run.state.value,
    }


def progress_percent(run: Run) -> int | None:
    """How far a run is, or what it downloads first, in percent; None when it does not tell."""
    if (part := run.progress.get("part")) and part[1]:
        return round(100 * min(1.0, part[0] / part[1]))
    fraction = run.progress.get("fraction")
    if not isinstance(fraction, int | float):
        return None
    return round(100 * min(1.0, max(0.0, fraction)))


def progress_words(run: Run, around: Around) -> str:
    """What a run that has not ended is doing: `Memorising: epoch 7 of 20 · loss 0.31 · 40 s left`."""
    if run.state == "queued":
        return around.words.get(run.id, "Waits for its turn")
    if run.ended:
        return ""
    now = run.progress
    parts = [str(now.get("message") or _doing(now))]
    if isinstance(now.get("loss"), int | float):
        parts.append(f"loss {figure(now['loss'])}")
    if run.state == "stopping":
        return " · ".join(["Stops after the current step", *parts[:1]])
    if isinstance(now.get("seconds_left"), int | float):
        parts.append(f"{duration(now['seconds_left'])} left")
    return " · ".join(parts)


def _doing(progress: dict[str, Any]) -> str:
    stage = str(progress.get("stage") or "")
    if not stage:
        return "Starting"
    verb = "Memorising" if stage == "stage1" else "Generalising" if stage.startswith("stage2") else "Evaluating"
    if progress.get("epoch") and progress.get("epochs"):
        return f"{verb}: epoch {progress['epoch']} of {progress['epochs']}"
    return verb
