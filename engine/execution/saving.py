"""When a training writes what: the epochs that are kept, and in between where it can go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.training.loop import Trainer

# How often a training writes where it can go on from: not more often than this, and for at most this share of its time.
RESUME_EVERY_SECONDS, RESUME_SHARE = 30, 0.03


class Enough(Exception):
    """Every epoch that was to be kept is there; those after it are not needed."""


class Saving:
    """Writes the epochs of `kept` into their folders, and others now and then into `rolling`.

    agree: of what this process thinks is due by its clock, what all that train together do. every: seconds.
    """

    def __init__(
        self,
        kept: Mapping[int, Path],
        rolling: Path,
        agree: Callable[[bool], bool] = lambda due: due,
        every: float | None = None,
    ) -> None:
        self.kept, self.rolling, self.agree = kept, rolling, agree
        self.every = RESUME_EVERY_SECONDS if every is None else every
        self.saved_at, self.writing = time.monotonic(), 0.0

    def after(self, epoch: int, trainer: Trainer) -> bool:
        """Write what is due after this epoch; returns whether it was one to keep. Raises OSError."""
        wanted = epoch in self.kept
        if wanted and trainer.save(self.kept[epoch], kept=True):
            self.saved_at = time.monotonic()
        due = time.monotonic() - self.saved_at > seconds_between_points(self.writing, self.every)
        if epoch < max(self.kept) and self.agree(due):
            began = time.monotonic()
            trainer.save(self.rolling)
            self.saved_at = time.monotonic()
            self.writing = self.saved_at - began
        return wanted

    def stop_if_enough(self, epoch: int) -> None:
        """Raises Enough when no later epoch is to be kept."""
        if epoch == max(self.kept):
            raise Enough


def seconds_between_points(writing: float, every: float = RESUME_EVERY_SECONDS) -> float:
    """How long to train before the next point to go on from is written, when the last one took `writing` seconds."""
    return max(every, writing / RESUME_SHARE)
