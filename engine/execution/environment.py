"""What a run ran on: versions, code, hardware. Stored with the run, so that it can be repeated."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine import CODE_ROOT, __version__
from engine.models.device import describe_hardware

# What a run's training computes in, `float32`, `mixed` or `bfloat16`, chosen by its first attempt.
TRAINING, UNDECIDED = "training_in", "not decided yet"
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "sqlite-utils")


def describe_environment() -> dict[str, Any]:
    """Versions of Python and of the packages that decide a result, the code's commit if it is known, the hardware."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "code": code_version(),
        "hardware": describe_hardware(),
    }


def kept_training(environment: dict[str, Any]) -> str:
    """What an earlier attempt's training computed in, by what it ran on; UNDECIDED for a first attempt."""
    if not environment:
        return UNDECIDED
    # Runs of before know no `mixed`: they computed in the format of their weights.
    return str(environment.get(TRAINING, "as its weights"))


def code_version() -> str:
    """The commit of the running code (with `+changes` when files differ from it); the package's version without one."""
    if not (CODE_ROOT / ".git").exists():
        # Installed: git would find the repository, if any, that the environment lies in.
        return __version__
    command = ["git", "-C", str(CODE_ROOT), "describe", "--always", "--dirty=+changes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
