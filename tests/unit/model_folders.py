"""Copies of tiny models, changed as other people's folders are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
INDEX = "model.safetensors.index.json"
PARTS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


def edit(file: Path, **changes: Any) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v != "-"}), encoding="utf-8")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def in_parts(folder: Path, **places: Any) -> None:
    """The weights in two files and an index; `places` of tensors are put into the index last."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {name: PARTS[i % 2] for i, name in enumerate(sorted(tensors))}
    for part in PARTS:
        save_file({n: t for n, t in tensors.items() if parts[n] == part}, folder / part, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {**parts, **places}}), encoding="utf-8")
