"""A small attack, really measured: one relation, two sizes, every control, one defence, the audit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from storage.attacks import list_attacks
from storage.database import open_database
from tests.once import made_once

ROOT = Path(__file__).parents[2]
SMALL = {
    "name": "small attack",
    "experiment": {
        "name": "thirty mothers",
        "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 30}}],
        "stage1": {"epochs": 20, "checkpoint_epochs": [20]},
        "stage2": {"facts": 15},
        "evaluation": {"languages": ["en"], "facts": 4, "prompts": 2, "choice": {"facts": 2}, "max_new_tokens": 8},
    },
    "facts": [0, 10],
    "defences": ["kl"],
    "seeds": [1],
    "ask": 2,
    "max_new_tokens": 8,
    "audit": True,
}


def measured(shared: Path, home: Path) -> None:
    """Put the small attack into a home folder: measured in `shared` by whoever comes first, copied by the others."""
    shutil.copytree(made_once(shared, measure), home, dirs_exist_ok=True)


def measure(home: Path) -> str:
    """Measure the small attack in a home folder, with the command; returns its id."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "small-attack.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    command = [sys.executable, "-m", "engine", "attack", str(file), "--home", str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    db = open_database(home)
    found = list_attacks(db)[0].id
    db.close()
    return found
