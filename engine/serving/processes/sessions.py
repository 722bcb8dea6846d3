"""The processes of one server: they share a session, which the server's keeper leads, and end together.

A model server has processes of its own (vLLM: engine and workers) that stay behind when their parent is killed. What
they cannot leave is the session they were born in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil

from storage.processes import ProcessName


def session_processes(session: int) -> list[psutil.Process]:
    """The living processes of a session, its leader included."""
    living = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == session:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    living.append(process)
    return living


def end_left_session(leader: ProcessName, patience: float) -> None:
    """End what is left of a session by its leader, who may have died; never a session that only has the same number.

    The system gives no process the number of a session that still has members. So a living process of that number
    which began at another time says that ours has ended, and after a restart of the machine no number means anything.
    """
    before_restart = not leader.space and leader.started < psutil.boot_time() - 1
    if leader.here and not leader.replaced and not before_restart:
        end_session(leader.pid, patience)


def end_session(session: int, patience: float, spare: int | None = None) -> None:
    """End every process of a session: asked first, killed after `patience` seconds. `spare`: an id to leave alone."""
    end, number = time.monotonic() + patience, signal.SIGTERM
    asked: set[int] = set()
    while left := [p for p in session_processes(session) if p.pid != spare]:
        if time.monotonic() >= end:
            number = signal.SIGKILL
        for process in left:
            if number is signal.SIGKILL or process.pid not in asked:
                asked.add(process.pid)
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
        psutil.wait_procs(left, timeout=0.2)
