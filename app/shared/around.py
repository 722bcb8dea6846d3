"""What a run's row needs to know of the rest of the lab: whether somebody works, who is who, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.shared.lab import Lab
from app.shared.render import duration
from storage.run_queue import Waiting, expected_order
from storage.runs import seconds_of_those_at_work


@dataclass(frozen=True, slots=True)
class Around:
    """The rest of the lab. names: of accounts, by id; empty where the lab has none. waiting: by run, in their order;
    words: of each, why it waits and about how long, as far as anybody can tell."""

    workers: bool
    names: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


def around(lab: Lab) -> Around:
    """The lab as it is now."""
    workers = len(lab.workers_alive())
    waiting = expected_order(lab.db)
    words = waiting_words(lab, waiting, workers) if waiting else {}
    return Around(workers > 0, lab.names(), {one.run: one for one in waiting}, words)


def waiting_words(lab: Lab, waiting: list[Waiting], workers: int) -> dict[str, str]:
    """By run: `Waits: 2 runs before it, about 7 min`.

    The time is what runs like those before it took (of the same study or attack, else of the same name, else of the
    same model), shared among the workers; where nothing like one of them was done before, no time is said.
    """
    if not workers:
        return {one.run: "Waits for a worker: none is running" for one in waiting}
    ahead: float | None = seconds_of_those_at_work(lab.db)
    found = {}
    for one in waiting:
        time = f", about {duration(ahead / workers)}" if ahead else ""
        if one.needs:
            found[one.run] = f"Waits for run {one.needs}, whose model it goes on from"
        elif one.before:
            found[one.run] = f"Waits: {one.before} run{'s' if one.before > 1 else ''} before it{time}"
        else:
            found[one.run] = f"Waits: it is the next{time}"
        ahead = None if ahead is None or one.seconds is None else ahead + one.seconds
    return found
