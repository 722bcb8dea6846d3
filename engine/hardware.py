"""What models run on — device, memory, threads — told without torch: the lab's own process never loads it.

Environment: `ROTE_LAB_DEVICE` (cuda, cuda:1, mps or cpu) and `ROTE_LAB_THREADS` override what is found.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

# On a CPU training and serving share the processors; `ROTE_LAB_SHARE_DEVICE=no` keeps them apart as on a GPU.
SHARE = "ROTE_LAB_SHARE_DEVICE"
# More threads than this only wait for each other on models that a CPU can train in reasonable time.
MAX_THREADS = 8
# A small model gains nothing from a second thread, and loses up to twenty times when another process wants that core:
# the threads wait for each other after each of its many short operations. (Measured with 0.02 and 1.2 M parameters.)
SMALL_MODEL_PARAMETERS = 4_000_000


class SettingError(ValueError):
    """An environment variable of the lab has a value that it cannot have; the message says what to do."""


def asked_device() -> str:
    """ROTE_LAB_DEVICE, '' where it is not set. Whether the device is there is for `engine.models.device` to say."""
    return os.environ.get("ROTE_LAB_DEVICE", "").strip()


def serving_device() -> str:
    """`cuda`, `cuda:1`, `mps` or `cpu`: ROTE_LAB_DEVICE, or else what is here."""
    if asked := asked_device():
        return asked
    if has_nvidia_gpu():
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is loaded and its GPUs are not hidden from this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def has_open_gpu() -> bool:
    """Whether an NVIDIA GPU can be opened from here: /proc tells of the driver in containers that were given none."""
    return has_nvidia_gpu() and Path("/dev/nvidiactl").exists()


def is_exclusive(device: str) -> bool:
    """Whether a run and a model server must not be on the device at the same time."""
    return not device.startswith("cpu") or os.environ.get(SHARE, "").strip().lower() in ("no", "0", "false")


def free_gib() -> float:
    """Memory that a new process can have, in GiB: of the machine, or of the container where that is less."""
    free = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free = min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free / 2**30


def device_gib(device: str) -> float:
    """All the memory of a device, in GiB; 0 where nobody tells. Of a processor the machine's, or the container's."""
    if device.startswith("cuda"):
        return gpu_gib(device)
    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # ‘max’ where there is no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total / 2**30


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as the driver counts them, whatever this process may see. uuid: `GPU-…`; gib: all its memory."""

    index: int
    uuid: str
    gib: float


@cache
def nvidia_gpus() -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi tells of; none where it is not there."""
    try:
        rows = _nvidia_smi("index,uuid,memory.total")
        return tuple(Gpu(int(index), uuid, float(mib) / 1024) for index, uuid, mib in rows)
    except ValueError:
        return ()


def gpu_memory() -> list[tuple[str, float, float]]:
    """(UUID, bytes in use, bytes) of each GPU at this moment; none where nvidia-smi is not there."""
    if not has_nvidia_gpu():
        return []
    try:
        rows = _nvidia_smi("uuid,memory.used,memory.total")
        return [(uuid, float(used) * 2**20, float(total) * 2**20) for uuid, used, total in rows]
    except ValueError:
        return []


def _nvidia_smi(what: str) -> list[list[str]]:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def gpu_of(device: str) -> Gpu | None:
    """The GPU that `cuda` (the first) or `cuda:1` is for this process; None where that is not known."""
    if not device.startswith("cuda"):
        return None
    place, names = int(device.partition(":")[2] or 0), _visible()
    return _named(names[place]) if place < len(names) else None


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in its order."""
    return tuple(gpu for name in _visible() if (gpu := _named(name)))


def gpus_together(count: int) -> tuple[Gpu, ...]:
    """So many GPUs for one training: this process's own first, then others of the lab. Fewer where there are no more.

    `ROTE_LAB_GPUS` has the UUIDs of the lab's, which a worker with a GPU of its own does not see.
    """
    names = [*_visible(), *filter(None, os.environ.get("ROTE_LAB_GPUS", "").split(","))]
    found = dict.fromkeys(gpu for name in names if (gpu := _named(name)))
    return tuple(found)[:count]


def serving_gpus() -> tuple[Gpu, ...]:
    """The GPUs that model servers may use: the one that ROTE_LAB_DEVICE names, else all that this process may; none
    where nvidia-smi does not tell of any, and on other devices."""
    device = serving_device()
    gpu = gpu_of(device)
    if not asked_device() and device == "cuda":
        return visible_gpus()
    return (gpu,) if gpu else ()


def _visible() -> list[str]:
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return [str(gpu.index) for gpu in nvidia_gpus()]
    return [name.strip() for name in asked.split(",") if name.strip()]


def _named(name: str) -> Gpu | None:
    by_number = name.isdecimal()
    return next((g for g in nvidia_gpus() if (str(g.index) == name if by_number else g.uuid.startswith(name))), None)


def device_key(device: str) -> str:
    """The name under which a device is held: of a GPU its UUID, so that `cuda`, `cuda:0` and what another process calls
    its only GPU are one."""
    gpu = gpu_of(device)
    return gpu.uuid if gpu else "cuda:0" if device == "cuda" else device


def gpu_gib(device: str = "cuda") -> float:
    """Memory of an NVIDIA GPU, in GiB; 0 where nvidia-smi does not tell."""
    gpu = gpu_of(device)
    return gpu.gib if gpu else 0.0


def cpu_threads(parameters: int | None = None) -> int:
    """ROTE_LAB_THREADS; else 1 for a small model; else the physical cores this process may use, to `MAX_THREADS`.

    Without `parameters`: for work side by side whose threads never wait for each other, so it takes every processor.
    Raises SettingError when ROTE_LAB_THREADS is no number.
    """
    if asked := os.environ.get("ROTE_LAB_THREADS", "").strip():
        if not asked.isdecimal() or int(asked) < 1:
            raise SettingError(f"ROTE_LAB_THREADS is ‘{asked}’: set it to a whole number from 1, or unset it")
        return int(asked)
    if parameters is not None and parameters < SMALL_MODEL_PARAMETERS:
        return 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = allowed if parameters is None else psutil.cpu_count(logical=False) or allowed
    return max(1, min(cores, allowed, MAX_THREADS))
