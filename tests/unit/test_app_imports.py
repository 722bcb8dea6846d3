"""The app starts without the science: none of its modules loads a training library, and Gradio is most of its start."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import serving

APP = Path(__file__).parents[2] / "app"
HEAVY = ("torch", "transformers", "vllm", "peft")
CHECK = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = [m for m in {heavy!r} if m in sys.modules]
    if heavy:
        sys.exit(f"{{name}} loads {{heavy}}")
"""


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(APP.parent).with_suffix("").parts)


def modules() -> list[str]:
    return ["app", *sorted(dotted(p) for p in APP.rglob("*.py") if not p.stem.startswith("__"))]


def test_no_module_of_the_app_loads_a_training_library() -> None:
    assert len(modules()) > 20
    command = [sys.executable, "-c", CHECK.format(heavy=HEAVY), *modules()]
    done = subprocess.run(command, cwd=APP.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_building_the_site_loads_no_training_library(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.site import build_site; build_site(Path(sys.argv[1]));"
        f"sys.exit(str([m for m in {HEAVY!r} if m in sys.modules]) if any(m in sys.modules for m in {HEAVY!r}) else 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=APP.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_the_server_starts_at_the_cost_of_gradio(tmp_path: Path) -> None:
    empty = "import gradio; from fastapi import FastAPI; gradio.mount_gradio_app(FastAPI(), gradio.Blocks(), path='/')"
    with computing() as peer:
        subprocess.run([sys.executable, "-c", empty], check=True, timeout=120)
    started = time.perf_counter()
    with computing() as ours, serving(tmp_path / "home"):
        seconds = time.perf_counter() - started
    print(f"\nfrom the command to the first answer: {seconds:.1f} s; {ours[0]:.1f} s computing; Gradio {peer[0]:.1f} s")
    # Both compute on the same machine at the same time: what is slow today is slow for both.
    assert ours[0] < 3 * peer[0]


@contextlib.contextmanager
def computing() -> Iterator[list[float]]:
    """Afterwards the list has the seconds for which the processes started within have computed, and have ended."""
    seconds: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield seconds
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
