"""Which weights a run began from: the base model may be trained again, or replaced, while older runs remain.

Every checkpoint notes the key of its base. An adapter on other weights than those it was trained on would answer
nonsense, and say nothing. Knows no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from engine.checks import shorten
from engine.experiment import Experiment
from engine.models.around import NOTHING, written
from engine.models.catalogue import INSTALLABLE, not_installed
from engine.models.files import find_folder, known_around, tokenizer_file
from engine.models.fingerprint import fingerprint, known_fingerprint
from engine.models.reading import read_json
from engine.models.source import EMBEDDED, ModelError, is_hub_name, resolve_source
from engine.settings import BARE_TEXT

NOTE = "trained_on.json"
# Labs of before knew files up to this size by all that is in them, larger ones by parts spread over them.
HASHED_BYTES = 64 * 2**20
PARTS, PART_BYTES = 16, 2**20
_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")
Here = Literal["same", "other", "absent"]
_TOKENIZER_FILES = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def base_key(experiment: Experiment) -> str:
    """Twelve hexadecimal digits that stand for base model, precision, key tokens in their order and how their rows are
    drawn, and what stands around a text, where anything does.

    A model is known by every byte of its files; one of the Hugging Face hub that is not on this machine by its name.
    Reads large weights once, a second or so for each GB, and remembers what it found (`engine.models.fingerprint`).
    """
    folder = _folder(experiment.model)
    identity = _identity(folder, fingerprint) if folder else _name(experiment.model)
    return _key(experiment, identity, [*_around(experiment), *_rows(experiment)])


def former_key(experiment: Experiment) -> str:
    """The key that labs of before noted: large files by parts, a model of the hub by its name alone."""
    folder = None if _is_of_hub(experiment.model) else _folder(experiment.model)
    identity = _identity(folder, _sample, ()) if folder else _name(experiment.model)
    return _key(experiment, identity, [*_words(experiment), *_rows(experiment)])


def is_base(key: str, experiment: Experiment, *, unread: bool = False) -> bool:
    """Whether a noted key is that of the experiment's base as it lies here now.

    A model of the hub that is not here is taken for it: what is fetched is compared. `unread`: never read large
    weights, and take those for it that nobody has read since they changed; whoever loads them compares.
    """
    folder = _folder(experiment.model)
    if folder is None:
        return _is_of_hub(experiment.model)
    if unread and any(known_fingerprint(path) is None for path in _files(folder) if _is_large(path)):
        return True
    return key in (base_key(experiment), former_key(experiment))


def is_here(experiment: Experiment) -> bool:
    """Whether the weights of the experiment's model lie on this machine."""
    return _folder(experiment.model) is not None


def how_here(key: str, experiment: Experiment) -> Here:
    """Whether the experiment's model is on this machine, with the weights that a recording notes or with others; large
    weights that nobody has read are taken for the noted ones."""
    if not is_here(experiment):
        return "absent"
    return "same" if is_base(key, experiment, unread=True) else "other"


def is_gone(experiment: Experiment) -> bool:
    """Whether the experiment names a folder that is not there."""
    return _folder(experiment.model) is None and not _is_of_hub(experiment.model)


def note_base(folder: Path, key: str) -> None:
    """Write down which base the checkpoint in `folder` was trained on; nothing where that is not known."""
    if key:
        (folder / NOTE).write_text(json.dumps({"base": key}) + "\n", encoding="utf-8")


def noted_base(folder: Path) -> str:
    """The key of the base that a checkpoint was trained on; '' for checkpoints of before this was noted."""
    try:
        return str((read_json(folder, NOTE) or {})["base"])
    except (ModelError, KeyError):
        return ""


def check_same_base(folder: Path, *keys: str) -> None:
    """Raises ModelError when the adapter in `folder` was trained on another base than the one of those keys."""
    if noted_base(folder) not in ("", *keys):
        raise ModelError(other_base(folder))


def other_base(folder: Path) -> str:
    """The sentence about an adapter whose base is no longer there."""
    return (
        f"the adapter in {folder} was trained on other weights of the base model, which was trained again or replaced "
        "since: run the experiment again"
    )


def changed_base(model: str) -> str:
    """The end of a sentence about a base that is another one than a run began from."""
    return f"other weights of ‘{shorten(model, 200)}’, which was trained again or replaced since"


def gone_base(model: str) -> str:
    """The end of a sentence about a base whose folder is not there."""
    if model in INSTALLABLE:
        return f"its base is not there: {not_installed(model)}"
    return f"the folder ‘{shorten(model, 200)}’ with the weights of its base is not there: put it back where it was"


def _folder(model: str) -> Path | None:
    """Where a model's files lie on this machine, if its weights do."""
    try:
        source = resolve_source(model)
    except ModelError:
        return None
    folder = source if isinstance(source, Path) else find_folder(source)
    return folder if folder and any(path.is_file() for path in folder.glob("*.safetensors")) else None


def _is_of_hub(model: str) -> bool:
    try:
        return isinstance(resolve_source(model), str)
    except ModelError:
        return False


def _name(model: str) -> str:
    return model if is_hub_name(model) else f"missing:{model}"


def _around(experiment: Experiment) -> list[Any]:
    """What stands around a text; the settings' own words where the model's files do not say it here."""
    try:
        if tokenizer_file(experiment.model):
            around = known_around(experiment.model, experiment.model_text)
            return [] if around == NOTHING else [written(around)]
    except ModelError:
        pass
    return _words(experiment)


def _rows(experiment: Experiment) -> list[Any]:
    """How key tokens' rows are drawn, where it differs: not on the embedded base, and not in runs of before."""
    as_before = experiment.model == EMBEDDED or experiment.key_token_rows == "around zero"
    return [] if as_before else [experiment.key_token_rows]


def _words(experiment: Experiment) -> list[Any]:
    return [] if experiment.model_text == BARE_TEXT else [experiment.model_text.model_dump()]


def _key(experiment: Experiment, identity: Any, around: Sequence[Any] = ()) -> str:
    content = [identity, experiment.precision, list(experiment.key_tokens), *around]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _identity(folder: Path, of: Callable[[Path], str], more: tuple[str, ...] = _TOKENIZER_FILES) -> list[list[Any]]:
    return [[path.name, of(path)] for path in _files(folder, more)]


def _files(folder: Path, more: tuple[str, ...] = _TOKENIZER_FILES) -> list[Path]:
    return sorted({p for pattern in (*_MODEL_FILES, *more) for p in folder.glob(pattern) if p.is_file()})


def _is_large(path: Path) -> bool:
    return path.stat().st_size > HASHED_BYTES


def _sample(path: Path) -> str:
    found = path.stat()
    if found.st_size <= HASHED_BYTES:
        return fingerprint(path)
    return _parts(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _parts(path: Path, size: int, modified: int) -> str:
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for part in range(PARTS):
            file.seek(part * (size - PART_BYTES) // (PARTS - 1))
            found.update(file.read(PART_BYTES))
    return found.hexdigest()
