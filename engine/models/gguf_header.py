"""Reads the start of a GGUF file, which anybody may have made: bounded, before anything larger touches it. No torch.

header = read_header(path)     # raises ModelError, one sentence, for what transformers could not read
header.parameters, header.architecture

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import ast
import importlib.util
import math
import os
import stat
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from engine.checks import shorten
from engine.models.source import ModelError

MAGIC = b"GGUF"
MOST_ENTRIES, MOST_TENSORS, MOST_VALUES = 10_000, 100_000, 4_000_000
MOST_NAME, MOST_TEXT, MOST_KEPT = 65_535, 16 * 2**20, 100_000
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# What may stand in a header in place of a model's true size, so that nothing of that size is ever made.
MOST = {
    "block_count": 2_000, "embedding_length": 1_000_000, "attention.head_count": 10_000, "vocab_size": 10_000_000,
    "rope.dimension_count": 100_000,
}  # fmt: skip


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself. values: numbers and short texts, and how long each list is."""

    architecture: str
    parameters: int
    tensors: int
    bytes: int
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes_unpacked(self) -> int:
        """The size in float32, in bytes."""
        return 4 * self.parameters


class _Damaged(Exception):
    """Why a header cannot be right."""


def read_header(path: Path) -> GgufHeader:
    """The header of a file. A second call for the unchanged file is free. Raises ModelError with one sentence."""
    where = shorten(str(path), 200)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{where} is no ordinary file: copy the model again")
        result = _read(path, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    except OSError as error:
        raise ModelError(f"{where} cannot be read ({error.strerror}): mend its permissions") from error
    if isinstance(result, str):
        raise ModelError(f"{where} {result}")
    return result


@lru_cache(maxsize=16)
def _read(path: Path, state: tuple[int, ...]) -> GgufHeader | str:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or file.read(4) != MAGIC:
                return "is no GGUF file: choose one, or the folder of a model with *.safetensors"
            return _checked(file, state[0])
    except (_Damaged, struct.error, UnicodeDecodeError, OverflowError) as error:
        reason = str(error) if isinstance(error, _Damaged) else "it is cut off or holds what is no text"
        return f"is a damaged GGUF file ({reason}): copy it again"


def _checked(file: BinaryIO, size: int) -> GgufHeader | str:
    (version,) = _take(file, "I")
    if version not in (2, 3):
        return f"is a GGUF file of version {version}, and versions 2 and 3 can be read: convert it again"
    tensors, entries = _take(file, "QQ")
    if tensors > MOST_TENSORS or entries > MOST_ENTRIES:
        raise _Damaged(f"it names {tensors} tensors and {entries} settings")
    values: dict[str, Any] = {}
    for _ in range(entries):
        name = _text(file, MOST_NAME)
        values[name] = _value(file, _take(file, "I")[0])
    kind = str(values.get("general.architecture", ""))
    if (parts := _number_of(values, "split.count", 0)) > 1:
        return f"is one of {parts} parts: join them first (llama-gguf-split --merge)"
    if (known := gguf_architectures()) and kind not in known:
        return f"holds a ‘{shorten(kind, 60)}’ model, whose GGUF files transformers cannot read: choose another"
    for key, most in MOST.items():
        if not 0 < (value := _number_of(values, f"{kind}.{key}")) <= most:
            raise _Damaged(f"{key} is {value}")
    parameters = _tensors(file, tensors, size, _number_of(values, "general.alignment", 0) or 32)
    hidden, rows = _number_of(values, f"{kind}.embedding_length"), _number_of(values, "tokenizer.ggml.tokens")
    if not parameters or hidden * rows > 2 * parameters or _least(kind, values) > 2 * parameters:
        raise _Damaged("its weights are fewer than its settings say")
    return GgufHeader(kind, parameters, tensors, size, values)


def _least(kind: str, values: dict[str, Any]) -> int:
    """How many parameters a model of these settings has at least: of a feed-forward and an attention matrix a layer."""
    layers, hidden, inner, heads, width = (
        _number_of(values, f"{kind}.{name}")
        for name in (
            "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.key_length",
        )
    )  # fmt: skip
    return layers * hidden * max(1, inner, heads * width)


def _number_of(values: dict[str, Any], key: str, default: int = 1) -> int:
    """A setting that counts something; of a list, its length."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _Damaged(f"{key.partition('.')[2]} is {shorten(' '.join(str(value).split()))}")
    return value


def _tensors(file: BinaryIO, count: int, size: int, alignment: int) -> int:
    """Reads where each tensor lies; returns how many parameters they are. All must lie within the file."""
    from gguf.constants import GGML_QUANT_SIZES  # some tenths of a second, only for those who have such a file

    sizes = {int(kind): of for kind, of in GGML_QUANT_SIZES.items()}
    if not 0 < alignment <= 2**20:
        raise _Damaged(f"its alignment is {alignment}")
    total, end = 0, 0
    for _ in range(count):
        name = _text(file, MOST_NAME)
        (dimensions,) = _take(file, "I")
        if not 0 < dimensions <= 4:
            raise _Damaged(f"‘{shorten(name)}’ has {dimensions} dimensions")
        shape = _take(file, "Q" * dimensions)
        kind, offset = _take(file, "IQ")
        if kind not in sizes:
            raise _Damaged(f"‘{shorten(name)}’ is packed in a way that nobody knows, {kind}")
        block, width = sizes[kind]
        elements = math.prod(shape)
        if not elements or elements % block:
            raise _Damaged(f"‘{shorten(name)}’ has {elements} numbers")
        total, end = total + elements, max(end, offset + elements // block * width)
    begin = -(-file.tell() // alignment) * alignment
    if begin + end > size:
        raise _Damaged(f"it ends after {size:,} of {begin + end:,} bytes")
    return total


def _take(file: BinaryIO, kinds: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{kinds}", file.read(struct.calcsize(f"<{kinds}")))


def _text(file: BinaryIO, most: int) -> str:
    (length,) = _take(file, "Q")
    if length > most:
        raise _Damaged(f"it holds a text of {length} bytes")
    raw = file.read(length)
    if len(raw) < length:
        raise _Damaged("it is cut off")
    return raw.decode("utf-8", "strict" if most == MOST_NAME else "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _text(file, MOST_TEXT)[:MOST_KEPT]
    if kind == ARRAY:
        inner, count = _take(file, "IQ")
        if count > MOST_VALUES or inner == ARRAY:
            raise _Damaged(f"it holds a list of {count} values")
        if inner == STRING:
            for _ in range(count):
                _text(file, MOST_TEXT)
        else:
            skipped = count * struct.calcsize(f"<{_number(inner)}")
            if len(file.read(skipped)) < skipped:
                raise _Damaged("it is cut off")
        return count
    return _take(file, _number(kind))[0]


def _number(kind: int) -> str:
    if kind not in NUMBERS:
        raise _Damaged(f"it holds a value of the unknown kind {kind}")
    return NUMBERS[kind]


@lru_cache(maxsize=1)
def gguf_architectures() -> frozenset[str]:
    """The kinds of model whose GGUF files transformers reads; empty where its list is not found. Imports nothing."""
    spec = importlib.util.find_spec("transformers")
    for place in spec.submodule_search_locations or () if spec else ():
        try:
            tree = ast.parse((Path(place) / "integrations" / "ggml.py").read_text(encoding="utf-8"))
        except (OSError, SyntaxError):
            continue
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "GGUF_CONFIG_MAPPING":
                keys = node.value.keys if isinstance(node.value, ast.Dict) else []
                found = {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
                # In the files a mixture has no underscore: transformers adds it when it reads one.
                return frozenset({*found, *(name.replace("_moe", "moe") for name in found)} - {"general", "tokenizer"})
    return frozenset()
