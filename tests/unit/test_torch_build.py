"""`make run` on Linux without an NVIDIA GPU takes PyTorch's build for processors; here the indexes are on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.browser.conftest import free_port

ROOT = Path(__file__).parents[2]
REGISTRY, FOR_CPU = "2.13.0", "2.13.0+cpu"


class Shelf(SimpleHTTPRequestHandler):
    """A folder's files, and which paths were asked for."""

    asked: list[str]

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


def stand_in(folder: Path, version: str) -> None:
    """A wheel that holds nothing but the name `torch` and a version."""
    folder.mkdir(parents=True)
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The address of two indexes, /registry and /cpu, and the list of what was asked of them."""
    folder = tmp_path_factory.mktemp("shelves")
    stand_in(folder / "registry" / "torch", REGISTRY)
    stand_in(folder / "cpu" / "torch", FOR_CPU)
    asked: list[str] = []
    handler = type("Handler", (Shelf,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Makefile, an environment, and requirements that name PyTorch alone."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "Makefile", folder)
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    pin = f"torch=={REGISTRY}\n"
    assert pin in (ROOT / "requirements.txt").read_text() and pin in (ROOT / "constraints.txt").read_text()
    (folder / "requirements.txt").write_text(pin)
    (folder / "constraints.txt").write_text(pin)
    return folder


def make_setup(checkout: Path, address: str, index: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make setup` as on Linux without a driver, with nothing but the two shelves to take from."""
    (checkout / ".venv" / "lab").unlink(missing_ok=True)
    settings = {"SYSTEM": "Linux", "NVIDIA": "", "TORCH_INDEX": index} | variables
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE"))}
    own |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{address}/registry", "PIP_NO_CACHE_DIR": "1"}
    command = ["make", "setup", *(f"{name}={value}" for name, value in settings.items())]
    return subprocess.run(command, cwd=checkout, env=own, capture_output=True, text=True, timeout=120)


def installed(checkout: Path) -> str:
    code = "import torch; print(torch.__version__)"
    command = [str(checkout / ".venv" / "bin" / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=checkout).stdout.strip()


@pytest.fixture
def bare(checkout: Path) -> Path:
    """The checkout without PyTorch in its environment."""
    python = str(checkout / ".venv" / "bin" / "python")
    uninstall = [python, "-m", "pip", "uninstall", "--quiet", "--yes", "torch"]
    subprocess.run(uninstall, check=True, capture_output=True)
    return checkout


def test_the_build_for_processors_is_taken_and_what_is_there_stays(bare: Path, shelves: tuple[str, list[str]]) -> None:
    address, asked = shelves
    done = make_setup(bare, address, f"{address}/cpu")
    assert done.returncode == 0, done.stderr
    assert installed(bare) == FOR_CPU
    assert "No NVIDIA GPU here" in done.stdout

    asked.clear()
    done = make_setup(bare, address, f"{address}/cpu")
    assert done.returncode == 0 and asked == []
    assert "No NVIDIA GPU here" not in done.stdout


def test_where_the_index_cannot_be_reached_the_build_of_the_registry_is_taken_soon(
    bare: Path, shelves: tuple[str, list[str]]
) -> None:
    address, _ = shelves
    began = time.monotonic()
    done = make_setup(bare, address, f"http://127.0.0.1:{free_port()}/cpu")
    assert done.returncode == 0, done.stderr
    assert installed(bare) == REGISTRY
    assert [line for line in done.stderr.splitlines() if "taking the registry's" in line]
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "settings", [{"NVIDIA": "/proc/driver/nvidia/version"}, {"SYSTEM": "Darwin"}, {"TORCH_INDEX": ""}]
)
def test_with_a_driver_on_a_mac_and_when_told_so_nothing_is_asked(
    settings: dict[str, str], bare: Path, shelves: tuple[str, list[str]]
) -> None:
    address, asked = shelves
    asked.clear()
    done = make_setup(bare, address, f"{address}/cpu", **settings)
    assert done.returncode == 0, done.stderr
    assert installed(bare) == REGISTRY
    assert not [path for path in asked if path.startswith("/cpu")]
