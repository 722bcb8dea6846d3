"""What must stay level however often something is killed: a process's memory and open files, and a home's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

# SQLite's own, there while a connection is open; a lock's file stays by design.
OF_DATABASES = ("-wal", "-shm", ".lock")


@dataclass(frozen=True)
class Level:
    """Resident memory (MiB) and open handles of a process and, for a model server's supervisor, nothing else."""

    memory: float
    handles: int

    @classmethod
    def of(cls, pid: int) -> Level:
        """As they are now. Raises psutil.Error when the process is gone."""
        process = psutil.Process(pid)
        return cls(process.memory_info().rss / 2**20, process.num_fds())


def told(before: Level, after: Level) -> str:
    """Both in words: `memory 80 → 81 MiB; handles 12 → 12`."""
    memory, handles = f"{before.memory:.0f} → {after.memory:.0f}", f"{before.handles} → {after.handles}"
    return f"memory {memory} MiB; handles {handles}"


def files_of(folder: Path) -> set[str]:
    """Every file below the folder, hidden ones included, by its place in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files if not path.name.endswith(OF_DATABASES)}
