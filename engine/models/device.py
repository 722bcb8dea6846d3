"""What torch makes of the hardware: the device, the number format, repeatable sums; and what it is in words."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from engine.hardware import SMALL_MODEL_PARAMETERS, asked_device, cpu_threads, has_open_gpu
from engine.models.source import ModelError

KEPT_BYTES = 256 * 2**20
# From how many times float32's speed on bfloat16 is worth its fewer digits.
WORTH_BFLOAT16 = 1.5
MEASURED_SECONDS = 0.4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the numbers that glibc's malloc.h gives these options


def choose_device() -> torch.device:
    """The accelerator if there is one, else the CPU.

    Raises ModelError when ROTE_LAB_DEVICE asks for what is not there, and for an NVIDIA GPU that PyTorch cannot use.
    """
    asked = asked_device()
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(asked or found)
    except RuntimeError as error:
        raise ModelError(f"ROTE_LAB_DEVICE is ‘{asked}’: set it to cuda, mps or cpu, or unset it") from error
    if not asked and found == "cpu" and has_open_gpu():
        raise ModelError(
            f"this machine has an NVIDIA GPU that PyTorch cannot use ({_why_not_cuda()}): mend that, or set "
            "ROTE_LAB_DEVICE=cpu to compute on the processor"
        )
    if not _is_available(device):
        raise ModelError(f"ROTE_LAB_DEVICE is ‘{asked}’, which this machine does not have: unset it to use {found}")
    return device


def _why_not_cuda() -> str:
    if torch.version.cuda is None:
        return "this build of it is for processors"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split()).split(". ")[0][:200]
    return "it names no reason"


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def prepare_cpu(parameters: int) -> None:
    """Make this process repeat a model's computations bit for bit: fixed threads, deterministic algorithms.

    Sums are split by thread, so another number of threads gives other last bits. Raises SettingError when
    ROTE_LAB_THREADS is no number.
    """
    torch.set_num_threads(cpu_threads(parameters))
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every new tensor with NaN only helps to find reads of uninitialised memory, and costs time in each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if parameters < SMALL_MODEL_PARAMETERS:
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of handing it back to the system and asking for it again.

    Each step of a small model otherwise takes one to two thousand page faults, a tenth of its time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(option, KEPT_BYTES)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of kept weights and of evaluation: `auto` is bfloat16 on an accelerator that has it, else
    float32.

    precision: `auto`, `float32`, `mixed` (weights in float32) or `bfloat16`; raises KeyError for another.
    """
    if precision == "auto":
        return torch.bfloat16 if _accelerates_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}[precision]


def choose_training(precision: str, device: torch.device, parameters: int, rounds_at_random: bool = False) -> str:
    """What training computes in, `float32`, `mixed` or `bfloat16`; for `auto` on a CPU a large model is measured.

    On an accelerator that has bfloat16 `auto` is mixed, as in the paper's code: see `engine.training.masters`; or, with
    an optimizer that rounds at random and so loses no small step (`engine.training.optimizers`), all in bfloat16.
    The measurement takes a second at most, and may come out otherwise at another time: who goes on with a training
    keeps what was chosen.
    """
    if precision != "auto":
        return precision
    if choose_dtype(precision, device) is torch.bfloat16:
        return "bfloat16" if rounds_at_random else "mixed"
    large = device.type == "cpu" and parameters > SMALL_MODEL_PARAMETERS
    return "mixed" if large and bfloat16_gain() >= WORTH_BFLOAT16 else "float32"


def bfloat16_gain() -> float:
    """How many times as fast as in float32 this CPU multiplies matrices in bfloat16; 0 where it only emulates it."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0.0
    fastest = {}
    for dtype in (torch.float32, torch.bfloat16):
        states, weights = torch.ones(256, 512, dtype=dtype), torch.ones(2048, 512, dtype=dtype)
        seconds: list[float] = []
        end = time.perf_counter() + MEASURED_SECONDS
        while len(seconds) < 3 or (len(seconds) < 50 and time.perf_counter() < end):
            began = time.perf_counter()
            torch.nn.functional.linear(states, weights)
            seconds.append(time.perf_counter() - began)
        fastest[dtype] = min(seconds)
    return fastest[torch.float32] / fastest[torch.bfloat16]


def give_back_memory() -> None:
    """Let other processes have what models that are gone took of an accelerator."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _accelerates_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "mps" and torch.backends.mps.is_macos_or_newer(14, 0)


def describe_hardware() -> dict[str, Any]:
    """What the work runs on, for a run's record: `device`, `name`, `memory_gib`, `cores`, `system`.

    Raises ModelError as `choose_device` does.
    """
    device = choose_device()
    memory = psutil.virtual_memory().total
    name = _processor_name()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    return {
        "device": device.type,
        "name": name,
        "memory_gib": round(memory / 2**30, 1),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
