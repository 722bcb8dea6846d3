"""What a model server would run on, told without torch: the lab's own process never loads it."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import psutil

# On a CPU training and serving share the processors; `ROTE_LAB_SHARE_DEVICE=no` keeps them apart as on a GPU.
SHARE = "ROTE_LAB_SHARE_DEVICE"


def serving_device() -> str:
    """`cuda`, `cuda:1`, `mps` or `cpu`: ROTE_LAB_DEVICE, or else what is here."""
    if asked := os.environ.get("ROTE_LAB_DEVICE", "").strip():
        return asked
    if has_nvidia_gpu():
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is loaded and its GPUs are not hidden from this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


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


@cache
def gpu_gib() -> float:
    """Memory of the first NVIDIA GPU, in GiB; 0 where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.split()[0]) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0.0


def serving_threads(parameters: int) -> int:
    """ROTE_LAB_THREADS or OMP_NUM_THREADS; else 1 for a small model, else the physical cores, to 8."""
    for name in ("ROTE_LAB_THREADS", "OMP_NUM_THREADS"):
        if (value := os.environ.get(name, "")).isdecimal() and int(value):
            return int(value)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or allowed, allowed, 8)
    return 1 if parameters < 4_000_000 else max(1, cores)
