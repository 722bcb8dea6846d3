"""End with the parent process, so that a killed worker or web server leaves no orphan behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, on_end: Callable[[], None] | None = None) -> None:
    """Watch the process `parent` (its id), which started this one, and end when it is gone.

    With `on_end` this process is told and ends itself; without, it is killed at once (on Linux by the kernel, else
    within half a second).
    """
    if on_end is None and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        # A process whose parent died is adopted by another one, so its parent's id changes.
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        if on_end is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            on_end()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
