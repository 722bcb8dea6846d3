"""What git checks at every commit: the three hooks stop a file that they should, with the environment's own tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRE_COMMIT = Path(sys.executable).with_name("pre-commit")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of its own with the lab's settings, and its environment where `make` has it."""
    for name in (".pre-commit-config.yaml", "pyproject.toml", "_typos.toml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("hook", "good", "bad"),
    [
        ("ruff", '"""Words."""\n\nimport os\n\nprint(os.name)\n', '"""Words."""\n\nimport os\n'),
        ("ruff-format", "x = 1\n", "x  =  1\n"),
        ("typos", "# the answer\n", "# t" + "eh answer\n"),
    ],
)
def test_each_hook_stops_what_it_should(
    hook: str, good: str, bad: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRE_COMMIT_HOME", str(checkout / "cache"))
    for text, expected in ((good, 0), (bad, 1)):
        (checkout / "words.py").write_text(text)
        subprocess.run(["git", "-C", checkout, "add", "words.py"], check=True)
        done = subprocess.run([PRE_COMMIT, "run", hook], cwd=checkout, capture_output=True, text=True, timeout=60)
        assert done.returncode == expected, done.stdout + done.stderr
