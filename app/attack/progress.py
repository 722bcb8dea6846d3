"""How far an attack is: what is done now, and how long the rest will take."""

from __future__ import annotations

from typing import Any

from app.attack.figures import Measured
from app.attack.words import FINE_TUNES, facts_words
from app.shared.around import around
from app.shared.lab import Lab
from app.shared.render import duration, moment
from app.shared.run_rows import progress_words
from storage.runs import ENDED, State


def busy_words(lab: Lab, m: Measured) -> str:
    """What goes on now and what is left; '' once everything has ended."""
    if not m.active:
        return ""
    rest = around(lab)
    running = next((c for c in m.cells if c.state in (State.RUNNING, State.STOPPING)), None)
    parts = []
    if running is not None:
        parts.append(f"Now: {cell_words(m, running.cell)}")
        parts.append(str(running.progress.get("message") or ""))
    else:
        waiting = next((c for c in m.cells if c.state is State.QUEUED), None)
        base = lab.run(waiting.needs) if waiting else None
        if base is not None and not base.ended:
            parts.append(f"First the model memorises. {progress_words(base, rest)}")
        else:
            parts.append(rest.words.get(waiting.run, "Waits for its turn") if waiting else "")
    if (left := seconds_left(m)) is not None:
        parts.append(f"about {duration(left)} left")
    return " · ".join(p for p in parts if p)


def seconds_left(m: Measured) -> float | None:
    """What the cells that are not done will take, as those that are took; None before there is one."""
    done = [(c.started_at, c.finished_at) for c in m.cells if c.state is State.DONE]
    took = [(moment(end) - moment(start)).total_seconds() for start, end in done if start and end]
    rest = sum(c.state not in ENDED for c in m.cells)
    return rest * sum(took) / len(took) if took else None


def cell_words(m: Measured, cell: dict[str, Any]) -> str:
    """What a cell does: `50 attack facts, no stage 1, defence ‘kl’`."""
    if cell["kind"] == "audit":
        return "the audit before release"
    parts = [facts_words(cell["attack_facts"]), FINE_TUNES.get(cell["control"], "")]
    parts.append("" if cell["defence"] == "none" else f"defence ‘{cell['defence']}’")
    parts.append(f"seed {cell['seed']}" if len(m.plan["seeds"]) > 1 else "")
    return ", ".join(p for p in parts if p)
