"""Whether a process that a row names still exists; a process id alone is not enough, since ids are used again.

Nothing here depends on the clock that people set: on Linux a process is known by the ticks between the machine's start
and its own, and by the space in which its id means anything: one start of the machine, one container.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class ProcessName:
    """A process for certain: host, id, when it started, and the space of its id.

    started: seconds since the machine started; where `space` is empty (no Linux, or a row of an older lab) since 1970.
    space: the machine's start and the container, as the system names them.
    """

    host: str
    pid: int
    started: float
    space: str = ""

    @classmethod
    def of(cls, pid: int | None = None) -> ProcessName:
        """This process, or that of an id on this machine. Raises psutil.NoSuchProcess."""
        pid = os.getpid() if pid is None else pid
        space = process_space()
        started = _ticks_of(pid) if space else None
        if started is None:
            space, started = "", psutil.Process(pid).create_time()
        return cls(socket.gethostname(), pid, started, space)

    @property
    def here(self) -> bool:
        """Whether its id means something here: on this host, since the host started, outside of other containers."""
        return self.host == socket.gethostname() and self.space in ("", process_space())

    @property
    def certain(self) -> bool:
        """Whether `lives` is certain: not for another machine's processes, nor for another container's on this one."""
        boots = {space.partition(" ")[0] for space in (self.space, process_space())}
        return self.host == socket.gethostname() and (self.here or len(boots) == 2)

    @property
    def lives(self) -> bool:
        """Whether it runs. Of another machine's processes nothing is known: they count as alive.

        Those of this host from before its start, or from a container of the same name, count as gone.
        """
        if self.host != socket.gethostname():
            return True
        if not self.here or not self._has_its_number():
            return False
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    @property
    def replaced(self) -> bool:
        """Whether another process has its id now, so that this one must have ended."""
        return psutil.pid_exists(self.pid) and not self._has_its_number()

    def _has_its_number(self) -> bool:
        if self.space:
            return _ticks_of(self.pid) == self.started
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.Error:
            return False


@cache
def process_space() -> str:
    """Which start of the machine this is, and which container's ids; '' where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _ticks_of(pid: int) -> float | None:
    """Seconds from the machine's start to the process's; None when there is no such process, or no /proc."""
    try:
        about = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field is its name in parentheses, which may hold anything; the 22nd is the start.
        return int(about.rpartition(")")[2].split()[19]) / _TICKS
    except (OSError, IndexError, ValueError):
        return None
