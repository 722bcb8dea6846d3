"""A GGUF file as a folder that the lab can train: unpacked to float32 once, with its tokenizer's settings put right.

folder = convert(path, target)              # some 20 seconds for 250 MB of Q4_K_M; holds the model twice in memory
folder = converted_folder(path)             # where the conversion of a person's own file lies, or None

Packed weights take part in no training, and bfloat16 could not hold what they stand for: so float32, at four bytes a
parameter. Nothing of the file is executed.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from engine.models.around import beginning_of
from engine.models.catalogue import models_folder
from engine.models.fingerprint import fingerprint
from engine.models.folder_check import read_tokenizer
from engine.models.folders import replaced
from engine.models.gguf_header import GgufHeader, read_header
from engine.models.source import ModelError, converted_folder, gguf_file

ORIGIN = "origin.json"
CONVERT_SECONDS = 3600
# How llama.cpp cuts texts before it looks for pieces (`tokenizer.ggml.pre`), where transformers does not know it.
DIGITS_ALONE = {"smollm"}


def converted(model: str) -> Path | None:
    """The folder of the converted file when `model` names a GGUF file, made now if it is not there; else None.

    Processes that ask at the same time wait for the one that converts. Raises ModelError and OSError.
    """
    path = gguf_file(model)
    if path is None:
        return None
    header = read_header(path)
    known = fingerprint(path)
    if ready := converted_folder(path):
        return ready
    folder = models_folder() / f"gguf-{known[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_space(folder.parent, int(1.2 * header.bytes_unpacked), f"converting {path.name}")
    with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=CONVERT_SECONDS):
        if not folder.is_dir():
            with replaced(folder) as new:
                convert(path, new, known)
                if fingerprint(path) != known:
                    raise ModelError(f"{path} changed while it was converted: wait until it is whole, then try again")
    return folder


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raises ModelError when the disk has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free: make room there"
        )


def convert(path: Path, target: Path, sha256: str, said: Callable[[str], None] = lambda _: None) -> None:
    """Write the model of a GGUF file into `target` as safetensors in float32, with tokenizer and origin.

    said: told what is being done. Raises ModelError.
    """
    # Transformers reads what lies beside the file, too: settings of a tokenizer, adapters, and code after a question.
    with TemporaryDirectory(prefix="rote-lab-gguf-") as alone:
        link = Path(alone, path.name)
        link.symlink_to(path.resolve())
        _convert(path, link, target, said)
    header = read_header(path)
    write_tokenizer_settings(target, header)
    origin = {
        "file": path.name,
        "bytes": header.bytes,
        "sha256": sha256,
        "architecture": header.architecture,
        "file_type": header.values.get("general.file_type"),
        "dtype": "float32",
        "versions": {name: version(name) for name in ("gguf", "transformers", "torch")},
    }
    (target / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _convert(path: Path, link: Path, target: Path, said: Callable[[str], None]) -> None:
    """Write weights and tokenizer of the file, read by a `link` to it with nothing beside it."""
    header = read_header(path)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()

    try:
        said("reading the tokenizer")
        # By a path, never by a name: transformers would ask the hub for one.
        tokenizer: Any = AutoTokenizer.from_pretrained(link.parent, gguf_file=link.name)
        mend_tokenizer(tokenizer, header)
        said("unpacking the weights")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            link.parent, gguf_file=link.name, dtype=torch.float32, output_loading_info=True
        )
        packed, report = loaded
        del loaded
        if missing := sorted(report["missing_keys"]):
            raise ModelError(f"{path} lacks weights ({len(missing)}, such as {missing[0]}): copy it again")
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # transformers refuses to save what it takes for packed
        with torch.device("meta"):
            model = type(packed)(config)
        model.load_state_dict(packed.state_dict(), assign=True)
        model.tie_weights()
        del packed
        gc.collect()
        said("writing the weights")
        config._name_or_path = ""
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    except (ModelError, OSError, MemoryError, SafetensorError):  # the last of a full disk, as `replaced` says
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"{path} cannot be read by transformers ({reason}): choose another file") from error


def mend_tokenizer(tokenizer: Any, header: GgufHeader) -> None:
    """Give the tokenizer what the file says of it and transformers leaves out: beginning, end, digits, chat template.

    The beginning of sentence decides whether a model like Gemma is itself: without it, it writes nonsense.
    """
    from tokenizers import pre_tokenizers, processors

    inner = tokenizer.backend_tokenizer
    says = {key.removeprefix("tokenizer.ggml."): value for key, value in header.values.items()}
    names = {role: inner.id_to_token(int(says.get(f"{role}_token_id", -1)) % 2**32) for role in ("bos", "eos")}
    for role, token in names.items():
        if token:
            setattr(tokenizer, f"{role}_token", token)
    first = names["bos"] if says.get("add_bos_token") else None
    last = names["eos"] if says.get("add_eos_token") else None
    around = [token for token in (first, last) if token]
    single = " ".join([*([first] if first else []), "$A", *([last] if last else [])])
    pair = " ".join([single, *([f"{first}:1"] if first else []), "$B:1", *([f"{last}:1"] if last else [])])
    inner.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, inner.token_to_id(token)) for token in around]
    )
    if says.get("pre") in DIGITS_ALONE:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    if template := header.values.get("tokenizer.chat_template"):
        tokenizer.chat_template = template


def write_tokenizer_settings(folder: Path, header: GgufHeader) -> None:
    """Say in tokenizer_config.json whether texts begin and end with a token, which transformers leaves out, and drop
    the tokens that it added to those of the file: no row of the weights is theirs.

    Where the file is silent of a beginning that its family needs, so are the settings: `around_of` then gives it.
    """
    file = folder / "tokenizer.json"
    parts = json.loads(file.read_text(encoding="utf-8"))
    count = header.values["tokenizer.ggml.tokens"]
    added = {token["content"] for token in parts["added_tokens"] if token["id"] >= count}
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["id"] < count]
    if added:
        file.write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for name in ("add_bos_token", "add_eos_token"):
        settings[name] = bool(header.values.get(f"tokenizer.ggml.{name}", False))
    passing = {"is_local", "local_files_only", "name_or_path", "extra_special_tokens"}
    foreign = {name for name, value in settings.items() if isinstance(value, str) and value in added}
    settings = {name: value for name, value in settings.items() if name not in passing | foreign}
    if "tokenizer.ggml.add_bos_token" not in header.values:
        silent = {name: value for name, value in settings.items() if name != "add_bos_token"}
        file.write_text(json.dumps(silent), encoding="utf-8")
        if beginning_of(folder, read_tokenizer(folder / "tokenizer.json")).needed:
            settings = silent
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
