"""What a model of the hub takes to download, asked in the background: no page ever waits for the hub.

    sizes = HubSizes(environment)
    sizes.bytes_of("Qwen/Qwen2.5-1.5B")     # None: not known yet, and to be asked about
    sizes.look("Qwen/Qwen2.5-1.5B")         # asks, unless somebody does; "3102000000" some seconds later

The page's own process is kept off the network, so each question is a process (`engine.models.hub_size`), which ends
after some seconds. Who gets no answer is told nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from engine import CODE_ROOT
from engine.models import hub_size
from engine.models.hub import is_to_fetch
from engine.models.source import ModelError

# The whole process, with its start, on a machine that is busy.
MOST_SECONDS = 20.0
# An answer is asked for again after so long; where there was none, somewhat sooner.
KEPT_SECONDS, AGAIN_SECONDS = 900.0, 60.0
MOST_AT_ONCE, MOST_KEPT = 2, 200


@dataclass
class _Note:
    """What is known of one model: bytes, None where nobody said; due: when to ask, by `time.monotonic`."""

    bytes: int | None = None
    due: float = float("-inf")
    asking: bool = False


class HubSizes:
    """Safe to call from any thread."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment`: what a process that asks runs with. None, and one that keeps off the hub: nothing is asked."""
        values = [(environment or {}).get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")]
        off = any(value.strip().upper() in ("1", "ON", "YES", "TRUE") for value in values)
        self._environment = None if environment is None or off else dict(environment)
        self._notes: OrderedDict[str, _Note] = OrderedDict()
        self._lock = threading.Lock()

    def bytes_of(self, model: str) -> int | None:
        """What a run of an experiment's `model` would download; None where nothing is, or nobody knows. Never waits."""
        try:
            if self._environment is None or not is_to_fetch(model):
                return None
        except ModelError:  # said elsewhere
            return None
        with self._lock:
            note = self._notes.setdefault(model, _Note())
            self._notes.move_to_end(model)
            while len(self._notes) > MOST_KEPT:
                self._notes.popitem(last=False)
            return note.bytes

    def look(self, model: str) -> str:
        """The bytes of a model that `bytes_of` was asked for, in digits, else ''; asks where it is time to.

        Whoever looks now and then asks for names that stay, not for every one that is half typed. Never waits.
        """
        with self._lock:
            note = self._notes.get(model)
            if note is None:
                return ""
            asked = sum(other.asking for other in self._notes.values())
            if not note.asking and note.due <= time.monotonic() and asked < MOST_AT_ONCE:
                note.asking = True
                threading.Thread(target=self._ask, args=(model, note), name="size of a model", daemon=True).start()
            return "" if note.bytes is None else str(note.bytes)

    def _ask(self, model: str, note: _Note) -> None:
        found = None
        try:
            command = [sys.executable, "-m", hub_size.__name__, model, "--parent", str(os.getpid())]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                timeout=MOST_SECONDS, cwd=CODE_ROOT, env=self._environment, check=True,
            )  # fmt: skip
            found = int(json.loads(done.stdout)["bytes"])
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
            pass
        with self._lock:
            # What was known is told on while the hub is silent: a model's size hardly changes.
            note.bytes = note.bytes if found is None else found
            note.due = time.monotonic() + (AGAIN_SECONDS if found is None else KEPT_SECONDS)
            note.asking = False
