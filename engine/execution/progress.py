"""How far a run is: one fraction over training and evaluation, the time left, and the words for the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WRITE_EVERY_SECONDS = 0.5


@dataclass
class Progress:
    """Counts work in *token passes* (tokens through the model once; a training step costs three passes).

    `total` (0 while it is not known) and `done` are in token passes; what an earlier attempt did counts as done but
    not for the speed.
    `write` stores a progress mapping and may raise to stop the run; it is called at most twice a second.
    """

    total: float
    write: Callable[[dict[str, Any]], None]
    done: float = 0.0
    clock: Callable[[], float] = time.monotonic
    state: dict[str, Any] = field(default_factory=dict)
    _done_here: float = 0.0
    _written: float = -WRITE_EVERY_SECONDS

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count the time from now on: a download, and waiting for the device, say nothing of the speed."""
        self._since = self.clock()

    def skip(self, passes: float) -> None:
        """Count work that an earlier attempt has already done."""
        self.done += passes

    def advance(self, passes: float, force: bool = False, **state: Any) -> None:
        """Count work done now and tell about it; `state` replaces what was told before."""
        self.done += passes
        self._done_here += passes
        self.state = state
        self._tell(force)

    def _tell(self, force: bool) -> None:
        clock = self.clock()
        if not force and clock - self._written < WRITE_EVERY_SECONDS:
            return
        self._written = clock
        elapsed = clock - self._since
        now = {**self.state, "fraction": round(min(1.0, self.done / self.total), 4) if self.total else 0.0}
        # The first second is start-up noise; a guess from it would frighten or deceive.
        if elapsed > 1 and self._done_here > 0:
            now["seconds_left"] = round(max(0.0, self.total - self.done) * elapsed / self._done_here, 1)
        self.write(now)
