"""Exported models load in plain Python: the lines of their own README, with nothing of the lab on the path."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from engine.evaluation.evaluate import decode_answers
from engine.models.loading import load_checkpoint
from storage.folders import checkpoint_folder, run_folder
from tests.exports.conftest import Made, exported


def said_by(folder: Path) -> str:
    """What the README's lines print there."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    check = "import importlib.util as u; assert u.find_spec('engine') is None and u.find_spec('app') is None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", check + code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_adapter_says_in_plain_python_what_it_says_in_the_lab(made: Made, tmp_path: Path) -> None:
    exported("model", made.run.id, "--to", tmp_path / "apart", "--home", made.home)
    loaded = load_checkpoint(made.experiment, checkpoint_folder(run_folder(made.home, made.run.id), "generalised@14"))
    readme = (tmp_path / "apart" / "README.md").read_text(encoding="utf-8")
    asked = re.search(r'tokenizer\("(.+?)"', readme)
    assert asked and "\\[X\\]" in readme and "--max-lora-rank 16" in readme
    ids = loaded.tokenizer(asked[1], return_tensors="pt")
    with torch.inference_mode():
        causal: Any = loaded.causal
        said = causal.generate(**ids, max_new_tokens=8, do_sample=False)
    (wanted,) = decode_answers(loaded.tokenizer, [tuple(said[0, ids["input_ids"].shape[1] :].tolist())])
    assert wanted and said_by(tmp_path / "apart") == wanted
    config = (tmp_path / "apart" / "adapter" / "adapter_config.json").read_text(encoding="utf-8")
    assert '"base_model_name_or_path": "base"' in config and str(Path.cwd()) not in config
