"""The app starts without the science: none of its modules loads a training library, and it answers within seconds."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
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
@pytest.mark.timeout(120)
def test_the_server_answers_within_seconds(tmp_path: Path) -> None:
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with serving(tmp_path / "home"):
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\nfrom the command to the first answer: {seconds:.1f} s, of which {work:.1f} s computing")
    # What it computes is what it takes on a machine that does nothing else at the same time.
    assert work < 10
