"""What the paper reports of representations, by checkpoint: of published.yaml, for what stands beside a run's own.

Formula, layer and position are not published, so that its figures and ours are to be compared in their course alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from engine.paper.tables import load_paper

TABLE = "representations"
# By the row's name: the epoch of stage 1, and whether stage 2 came after it.
CHECKPOINTS = {"base": (0, False), "epoch2": (2, False), "epoch20": (20, False), "after": (20, True)}


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A row of the paper's table. epoch: of stage 1; None where the paper gives no figure."""

    epoch: int
    after_stage2: bool
    delta: float | None
    train: float | None
    test: float | None
    unrelated: float | None


@cache
def published_checkpoints() -> tuple[PublishedCheckpoint, ...]:
    """The rows in their order."""
    found = []
    for name, row in load_paper().tables[TABLE].rows.items():
        values = {column: value.value for column, value in row.published.items()}
        epoch, after = CHECKPOINTS[name]
        splits = (values.get(column) for column in ("delta", "train", "test", "unrelated"))
        found.append(PublishedCheckpoint(epoch, after, *splits))
    return tuple(found)


def published_model() -> str:
    """The model that they are of."""
    return load_paper().tables[TABLE].model
