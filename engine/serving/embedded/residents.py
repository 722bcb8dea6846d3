"""The models that the embedded server holds in memory: loaded when first asked, the longest unused let go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch

from engine.evaluation.generation import end_tokens
from engine.evaluation.plain import context
from engine.evaluation.tree import fast_length
from engine.hardware import SMALL_MODEL_PARAMETERS, cpu_threads
from engine.models.checksums import check_intact
from engine.models.limits import ENDLESS, context_of
from engine.models.loading import load_weights
from engine.serving.embedded.adapters import Adapters
from engine.serving.embedded.catalogue import Catalogue, Place

# A base keeps this many adapters; each is small, but every one of them slows the switch to another.
MOST_ADAPTERS = 32
# Of the memory that is free when the server starts, what its models may fill.
MEMORY_SHARE = 0.5
# How long a text tries out whether the fast ways are the model's own.
PROBED_TOKENS = 64


@dataclass
class Resident:
    """A model in memory.

    adapter: which one of `adapters` is asked, None for the model itself; context: how many tokens it reads at most;
    limit: up to how many it is answered in the fast way (`engine.evaluation.tree.fast_length`);
    small: adapters become models of their own, which can compute side by side; those of one large base take turns.
    """

    name: str
    model: Any
    tokenizer: Any
    ends: frozenset[int]
    context: int
    vocabulary: int
    limit: int
    threads: int
    adapters: Adapters | None = None
    adapter: str | None = None
    small: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def asking(self) -> Iterator[Any]:
        """The model, with this resident's adapter and no other's, ready to compute in this thread."""
        with self.lock, torch.inference_mode():
            torch.set_num_threads(self.threads)
            if self.adapters is not None:
                self.adapters.switch_to(self.adapter)
            yield self.model


@dataclass(eq=False)
class _Held:
    """A model in memory, who is using it, and when it was asked last."""

    place: Place
    resident: Resident
    size: int
    users: int = 0
    used: float = 0.0


class Residents:
    """Finds, loads and lets go. May be used from several threads."""

    def __init__(self, catalogue: Catalogue, memory: int | None = None) -> None:
        self.catalogue = catalogue
        self._memory = memory or int(MEMORY_SHARE * free_memory())
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}

    def loaded(self) -> list[str]:
        """Names of the models in memory, without loading anything."""
        return sorted(self._held)

    def context_of(self, place: Place) -> int | None:
        """How many tokens a model reads, also of one that is not in memory."""
        folder = place.folder
        if place.base:
            folder = self.catalogue.find(place.base).folder
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        context = context_of(config) if isinstance(config, dict) else ENDLESS
        return None if context == ENDLESS else context

    @contextmanager
    def holding(self, name: str) -> Iterator[Resident]:
        """The model of that name, loaded if need be, kept in memory meanwhile.

        Raises UnknownModel, and ModelError for one that cannot be loaded.
        """
        with self._lock:
            held = self._get(name)
            held.users += 1
        try:
            yield held.resident
        finally:
            with self._lock:
                held.users -= 1

    def let_go(self, name: str) -> bool:
        """Take a model out of memory; returns whether it was there."""
        with self._lock:
            there = name in self._held
            self._let_go(name)
            return there

    def _get(self, name: str) -> _Held:
        place = self.catalogue.find(name)
        held = self._held.get(place.name)
        if held is None or held.place != place:
            self._let_go(place.name)
            held = self._load(place)
        held.used = time.monotonic()
        if place.base:
            self._held[place.base].used = held.used
        return held

    def _load(self, place: Place) -> _Held:
        check_intact(place.folder)
        if place.base:
            base = self._get(place.base).resident
            self._make_room(place, _bytes_of(base.model) if base.small else 0)
            assert base.adapters is not None
            with base.lock:
                own = base.adapters.merged(place.folder) if base.small else None
                if own is None:
                    base.adapters.add(place.name, place.folder)
                    size = base.adapters.bytes_of(place.name)
            if own is None:
                resident = replace(base, name=place.name, adapter=place.name)
            else:
                size = _bytes_of(own)
                resident = replace(base, name=place.name, model=own, adapters=None, lock=threading.RLock())
        else:
            self._make_room(place)
            resident = _resident(place)
            size = _bytes_of(resident.model)
        self._held[place.name] = held = _Held(place, resident, size)
        return held

    def _make_room(self, new: Place, more: int = 0) -> None:
        """Let the models go that were not asked for the longest, until the new one fits, with `more` bytes."""
        needed = more + sum(f.stat().st_size for f in new.folder.glob("*.safetensors"))
        for name, held in sorted(self._held.items(), key=lambda item: item[1].used):
            siblings = [h for h in self._held.values() if h.place.base and h.place.base == new.base]
            too_many = held in siblings and len(siblings) >= MOST_ADAPTERS
            full = needed + sum(h.size for h in self._held.values()) > self._memory
            carries = any(h.place.base == name and h.users for h in self._held.values())
            if (too_many or full) and name != new.base and not held.users and not carries:
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is None:
            return
        for other in [n for n, h in self._held.items() if h.place.base == name]:
            self._let_go(other)
        if held.place.base and held.resident.adapters is not None:
            with held.resident.lock:
                held.resident.adapters.remove(name)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _resident(place: Place) -> Resident:
    loaded = load_weights(place.folder, place.precision)
    model = loaded.causal.requires_grad_(False)
    config = model.config.get_text_config()
    vocabulary = int(config.vocab_size)
    with torch.inference_mode():
        prompt, options = [2 + i % 7 for i in range(6)], [(5 + i, 3, 2 + i) for i in range(4)]
        limit = fast_length(model, prompt, options, PROBED_TOKENS)
    return Resident(
        name=place.name,
        model=model,
        tokenizer=loaded.tokenizer,
        ends=frozenset(end_tokens(model, loaded.tokenizer)),
        context=context(model),
        vocabulary=vocabulary,
        limit=limit,
        threads=cpu_threads(model.num_parameters()) if loaded.device.type == "cpu" else 1,
        adapters=Adapters(model),
        # Fewer digits would be rounded anew when weights are added up.
        small=model.dtype == torch.float32 and model.num_parameters() < SMALL_MODEL_PARAMETERS,
    )


def _bytes_of(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def free_memory() -> int:
    """Bytes that are free now, of the accelerator where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available
