"""The contracts about imports hold: each is seen broken by one import planted into a copy of the code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in SETTINGS["contracts"]}
LAZY = "def later():\n    import {}\n"

# The contract, where the import is planted, and what is imported there.
PLANTED = [
    ("houses", "storage/planted.py", "import engine.experiment\n"),
    ("houses", "engine/commands/planted.py", LAZY.format("app.shared.words")),
    ("app", "app/shared/planted.py", "import app.server.theme\n"),
    ("app", "app/asking/planted.py", LAZY.format("app.ask.page")),
    ("pages", "app/runs/planted.py", "import app.design.page\n"),
    ("pages", "app/attack/planted.py", LAZY.format("app.ask.page")),
    ("engine", "engine/models/planted.py", "import engine.training.loop\n"),
    ("engine", "engine/serving/planted.py", "import engine.execution.worker\n"),
    ("engine", "engine/experiment.py", LAZY.format("engine.commands.main")),
    ("science", "engine/training/planted.py", "import storage.database\n"),
    ("science", "engine/attack/planted.py", "import app.shared.words\n"),
    ("light", "storage/planted.py", "import torch\n"),
    ("light", "app/shared/planted.py", LAZY.format("transformers")),
    ("light", "app/server/planted.py", "import engine.training.loop\n"),
    ("tools", "engine/planted.py", "import tools\n"),
    ("tools", "app/site.py", LAZY.format("tests")),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The product's Python files, which need not run, and the contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in SETTINGS["root_packages"]:
        for file in (ROOT / room).rglob("*.py"):
            (tmp_path / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / file.relative_to(ROOT))
    return tmp_path


def broken(folder: Path, contract: str) -> str:
    """What the linter says about one contract that it finds broken in `folder`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--contract", contract, "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{CONTRACTS[contract]['name']} BROKEN" in done.stdout
    return done.stdout


@pytest.mark.parametrize(("contract", "file", "code"), PLANTED)
def test_a_planted_import_breaks_its_contract(contract: str, file: str, code: str, copy: Path) -> None:
    with (copy / file).open("a", encoding="utf-8") as planted:
        planted.write(f"\n\n{code}")
    importer, imported = file.removesuffix(".py").replace("/", "."), code.split("import ")[-1].strip()
    assert f"{importer} -> {imported}" in broken(copy, contract)


@pytest.mark.parametrize("room", ["app", "engine"])
def test_a_new_room_needs_its_place_among_the_layers(room: str, copy: Path) -> None:
    (copy / room / "attic.py").write_text("")
    assert f"{room}.attic" in broken(copy, room)


def test_every_contract_is_among_those_planted_against() -> None:
    assert {contract for contract, _, _ in PLANTED} == set(CONTRACTS)
