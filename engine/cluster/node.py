"""What a machine of a cluster runs: one actor of Ray for a run, which carries it out in a private lab and is asked what
is new. It is asked, and never calls: so it works through Ray Client too, and needs no way to the lab that owns the run.

Everything that comes from it is plain data. It ends by itself when nobody asks any more.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from typing import Any

from engine.cluster.parts import Part
from engine.cluster.private_lab import PrivateLab
from engine.cluster.versions import versions
from storage.carrying import Rows

# As long as an answer may take when there is nothing new, and as long as nobody may ask.
WAIT_SECONDS, LOOK_SECONDS = 1.0, 0.1
FORGOTTEN_SECONDS = 60.0


class RunOnNode:
    """One run. Made by Ray, in a process of its own, with the devices that the run needs."""

    def __init__(self) -> None:
        self._lab: PrivateLab | None = None
        self._asked = time.monotonic()
        self._number, self._answer = -1, dict[str, Any]()
        threading.Thread(target=self._end_when_forgotten, name="end-when-forgotten", daemon=True).start()

    def hello(self) -> dict[str, Any]:
        """Where this is, and which versions are there."""
        import ray  # an extra, which this module can be read without

        return {"versions": dict(versions()), "host": platform.node(), "node": ray.get_runtime_context().get_node_id()}

    def receive(self, parts: list[Part]) -> None:
        """Take parts of the files that the run needs."""
        self._asked = time.monotonic()
        for part in parts:
            self._private().receive(part)

    def begin(self, rows: Rows, run: str, environment: dict[str, str], owners_home: str) -> None:
        """Begin to carry out the run of that id."""
        self._asked = time.monotonic()
        self._private().begin(rows, run, environment, owners_home)

    def news(self, number: int, stop: bool) -> dict[str, Any]:
        """What is new since the last question; waits for it a moment. The same number gets the same answer again.

        stop: cancel the run.
        """
        self._asked = time.monotonic()
        lab = self._private()
        if stop:
            lab.stop()
        if number != self._number:
            end = time.monotonic() + WAIT_SECONDS
            answer = lab.news()
            while not (answer["over"] or answer["parts"] or answer["log"] or answer.get("letter")):
                if time.monotonic() > end:
                    break
                time.sleep(LOOK_SECONDS)
                answer = lab.news()
            self._number, self._answer = number, answer
        return self._answer

    def close(self) -> None:
        """Remove what the run left here; then the actor can be ended."""
        if self._lab is not None:
            self._lab.close()
            self._lab = None

    def _private(self) -> PrivateLab:
        if self._lab is None:
            self._lab = PrivateLab()
        return self._lab

    def _end_when_forgotten(self) -> None:
        while time.monotonic() - self._asked < FORGOTTEN_SECONDS:
            time.sleep(1)
        try:
            self.close()
        finally:
            os._exit(1)
