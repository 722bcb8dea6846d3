"""The package as a stranger meets it: built, installed into a fresh environment, used where our code does not lie."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine import __version__
from tests.browser.conftest import free_port, wait_until_ready
from tests.integration.lab import wait_until

ROOT = Path(__file__).parents[2]
OWN = ("app", "engine", "storage")
MAX_BYTES = 10_000_000
# Whatever the surroundings say about where Python code lies must not help the installed package.
SURROUNDINGS = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "ROTE_LAB_HOME")}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git tracks, with changes not yet committed; nothing that an earlier build left is in it."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def script(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`rote-lab` in a fresh environment, where pip found the wheel and its dependencies."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    # PyTorch first, as the machine needs it; all else by the wheel's own list.
    subprocess.run(["make", "--silent", "torch", f"VENV={environment}"], cwd=ROOT, check=True)
    command = [
        str(environment / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "-c",
        "constraints.txt",
        str(wheel),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    return environment / "bin" / "rote-lab"


def tracked() -> set[str]:
    """The files that git tracks, and new ones that it would."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_holds_what_git_tracks_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == {name for name in tracked() if name.startswith(tuple(f"{room}/" for room in OWN))}
    assert wheel.stat().st_size < MAX_BYTES


def test_the_wheel_asks_for_what_the_requirements_say(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        said = re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.MULTILINE)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert said == [line for line in lines if not line.startswith("#")]


@pytest.mark.timeout(1200)
def test_quick_runs_from_an_empty_folder(script: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    version = subprocess.run([script, "--version"], cwd=here, env=SURROUNDINGS, capture_output=True, text=True)
    assert version.stdout.split() == ["rote-lab", __version__]
    command = [str(script), "run", "quick", "--home", str(tmp_path / "home"), "--results", "r.json"]
    done = subprocess.run(command, cwd=here, env=SURROUNDINGS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads((here / "r.json").read_text())
    assert document["run"]["environment"]["code"] == __version__
    assert document["rows"]
    assert [p.name for p in here.iterdir()] == ["r.json"]


def test_the_page_and_its_worker_run_beside_folders_of_the_same_names(script: Path, tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    for name in OWN:
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text("raise SystemExit('not the lab')\n")
    port = free_port()
    command = [str(script), "page", "--home", str(home), "--port", str(port)]
    home.mkdir()
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=here, env=SURROUNDINGS, stdout=log, stderr=log)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, home / "server.log")
        wait_until(lambda: list((home / "runs").glob("*/log.txt")), "the worker's first run")
        assert "not the lab" not in (home / "logs" / "worker.log").read_text()
    finally:
        process.terminate()
        process.wait(60)
