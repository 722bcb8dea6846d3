"""A folder with nothing in it but what may be read of a model: transformers gets this one instead of the model's own.

    with safe_view(folder) as view:
        AutoConfig.from_pretrained(view)

It holds links to the files of weights and of the tokenizer, and the settings without those that name code, kernels or
other files. What else lies in a model's folder is not there, so no version of a library can be led to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.models.reading import inside_file, read_json
from engine.models.weights import INDEX, Weights

SETTINGS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
FILES = ("tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja")
# Code of the model's own; kernels fetched for attention and experts; other files, models and devices.
UNSAFE = re.compile(
    r"auto_map|custom_(generate|pipelines)|.*_implementation(_.*)?|use_kernels|kernel_config|transformers_weights|"
    r"fusion_config|distributed_config|peft_config|.*_files?|_?name_or_path|init_inputs|tokenizer_object|from_slow"
)
LABELS = {"num_labels", "id2label", "label2id"}  # a number here makes a table of that size


@contextmanager
def safe_view(folder: Path, weights: Weights) -> Iterator[Path]:
    """The view of a model's folder, for as long as the block runs. Raises ModelError as `read_json` does, and OSError.

    weights: what `read_weights` understood of the folder.
    """
    with TemporaryDirectory(prefix="rote-lab-model-") as name:
        view = Path(name)
        for setting in SETTINGS:
            if (data := read_json(folder, setting)) is not None:
                (view / setting).write_text(json.dumps(without_unsafe(data)), encoding="utf-8")
        for file in (*FILES, *weights.files):
            if (path := inside_file(folder, file)) is not None:
                (view / file).symlink_to(path.resolve())
        if len(weights.files) > 1 or INDEX.removesuffix(".index.json") not in weights.files:
            index = {"metadata": {}, "weight_map": weights.places}
            (view / INDEX).write_text(json.dumps(index), encoding="utf-8")
        yield view


def without_unsafe(data: Any) -> Any:
    """Settings without what could make a library run or read something else, at every depth."""
    if isinstance(data, dict):
        kept = {k: v for k, v in data.items() if k not in LABELS and not UNSAFE.fullmatch(k)}
        return {key: without_unsafe(value) for key, value in kept.items()}
    return [without_unsafe(value) for value in data] if isinstance(data, list) else data
