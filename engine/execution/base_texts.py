"""The base's own text that a run trains on beside its facts, and that its checkpoints are held against.

Written once by the base and kept in two places: in the run's own folder (`storage.folders.base_text_file`), and for
every run that asks the same base to go on from the same beginnings, in HOME/base_text/KEY.json. Either is written whole
or not at all; what is missing or can't be read is written again, on a CPU with the same outcome.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.corpus.beginnings import (
    STAGES,
    BaseText,
    Beginnings,
    held_out_beginnings,
    replayed_beginnings,
    without_names,
)
from engine.evaluation.base_text import beginning_ids, write_on
from engine.execution.failures import PlainError
from engine.experiment import Experiment
from engine.models.folders import write_whole
from engine.models.loading import LoadedModel
from engine.settings import Replay
from engine.training.leash import with_leash
from engine.training.replay import Replayed, replayed
from storage.folders import base_text_file, shared_base_text_file

logger = logging.getLogger("engine")
_TEXTS = TypeAdapter(list[BaseText])

OnText = Callable[[int, int], None]  # (texts written, texts in all); may raise to stop


@dataclass(frozen=True)
class BaseTexts:
    """`stages`: what each stage replays, by its name; `held_out`: what checkpoints are held against."""

    stages: dict[str, Replayed] = field(default_factory=dict)
    held_out: list[BaseText] = field(default_factory=list)


def base_texts(folder: Path, experiment: Experiment, base: LoadedModel, on_text: OnText) -> BaseTexts:
    """The texts of the run in `folder`, written by the untrained `base` where they are not there yet.

    Raises PlainError when the base has nothing to say, OSError, and whatever `on_text` raises.
    """
    asked: dict[str, Beginnings | None] = {stage: replayed_beginnings(experiment, stage) for stage in STAGES}
    asked["held_out"] = held_out_beginnings(experiment)
    kept = _Kept(folder, base)
    texts, uses = {}, {}
    for use, beginnings in asked.items():
        if beginnings is not None:
            key, written = kept.get(beginnings, on_text)
            texts[use] = without_names(experiment, written)
            uses[use] = {"set": key, "asked": len(beginnings.texts), "beginnings_left_out": beginnings.left_out}
            uses[use] |= {"used": len(texts[use])}
            if not texts[use]:
                raise PlainError(
                    "The base model writes nothing behind the beginnings of the text to replay: leave out the replay "
                    "of both stages and evaluation.base_text."
                )
    if uses:
        kept.write_record(uses)
    stages = {}
    for stage in (stage for stage in STAGES if stage in texts):
        settings: Replay = getattr(experiment, stage).replay
        plain = replayed(texts[stage], settings)
        stages[stage] = with_leash(base, plain) if settings.leash else plain
    return BaseTexts(stages, texts.get("held_out", []))


def kept_replay(folder: Path, experiment: Experiment, model: LoadedModel, stage: str) -> Replayed:
    """What a stage of the finished run in `folder` replayed, for a later training of `model` that comes from it.

    With a leash it is held to what `model` says now. Raises PlainError where the run's folder no longer has it.
    """
    beginnings, settings = replayed_beginnings(experiment, stage), getattr(experiment, stage).replay
    texts = _Kept(folder, model).find(beginnings) if beginnings else None
    if texts is None:
        raise PlainError("What stage 2 of the attacked run replayed is not in its folder: attack without replay.")
    plain = replayed(without_names(experiment, texts), settings)
    return with_leash(model, plain) if settings.leash else plain


class _Kept:
    """The sets of texts by their keys: in the run's record, else shared, else written now."""

    def __init__(self, folder: Path, base: LoadedModel) -> None:
        self.folder, self.base = folder, base
        record = _read(base_text_file(folder))
        self.sets: dict[str, Any] = record.get("sets", {}) if isinstance(record, dict) else {}

    def find(self, beginnings: Beginnings) -> list[BaseText] | None:
        """Those that are there; None where they have to be written."""
        key = self._key(beginnings)
        for found in (self.sets.get(key), _read(shared_base_text_file(self.folder, key))):
            if (texts := _texts(found)) is not None:
                self.sets[key] = found
                return texts
        return None

    def get(self, beginnings: Beginnings, on_text: OnText) -> tuple[str, list[BaseText]]:
        key = self._key(beginnings)
        if (there := self.find(beginnings)) is not None:
            return key, there
        done, total = 0, len(beginnings.texts)

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            on_text(done, total)

        texts = write_on(self.base, beginnings, on_rows=on_rows)
        logger.info("the base wrote %d texts", len(texts))
        self.sets[key] = [asdict(text) for text in texts]
        _write(shared_base_text_file(self.folder, key), self.sets[key])
        return key, texts

    def write_record(self, uses: dict[str, dict[str, Any]]) -> None:
        """Keep with the run what it uses: for what, and every text of it."""
        used = {use["set"]: self.sets[use["set"]] for use in uses.values()}
        record = {"base": self.base.base, "uses": uses, "sets": used}
        if _read(base_text_file(self.folder)) != json.loads(json.dumps(record)):
            _write(base_text_file(self.folder), record)

    def _key(self, beginnings: Beginnings) -> str:
        """What stands for the base and all that it is given: another base, seed or way to read a text, another key."""
        given = [self.base.base, beginnings.tokens, beginnings.texts, beginning_ids(self.base, beginnings)]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()[:16]


def _texts(found: Any) -> list[BaseText] | None:
    try:
        return _TEXTS.validate_python(found) if found is not None else None
    except ValidationError:
        return None


def _read(file: Path) -> Any:
    """A JSON file's content; None where there is none, or none that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _write(file: Path, content: Any) -> None:
    """Write a file whole, in place of an older one. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(content, ensure_ascii=False).encode())
