"""Whether a process that a row names still exists; a process id alone is not enough, since ids are used again."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class ProcessName:
    """A process for certain: host, id, and when it started (seconds since 1970)."""

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int | None = None) -> ProcessName:
        """This process, or that of an id on this machine. Raises psutil.NoSuchProcess."""
        pid = os.getpid() if pid is None else pid
        return cls(socket.gethostname(), pid, psutil.Process(pid).create_time())

    @property
    def lives(self) -> bool:
        """Whether it runs. Of another machine's processes nothing is known: they count as alive."""
        if self.host != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False
