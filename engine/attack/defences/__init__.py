"""Defences, one file each in this folder: a file that defines `DEFENCE` is a defence.

The page lists them, so importing one imports no torch: what loads it is imported inside the functions that train.

A defence may do one or more of:
    sentences(context, loaded)      more to train on, mixed into whatever a customer brings
    penalty(context, loaded)        a number added to each training step's loss, made before training starts
    harden(context, loaded)         change the model before it is released, in place
    audit(context, loaded)          rows of what an audit of a model and its training data finds
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal


@dataclass(frozen=True)
class Defence:
    """name: as experiments call it; label, says: for a page, `says` in one plain sentence."""

    name: str
    label: str
    says: str
    kind: Literal["training", "weights", "detection"]
    sentences: Callable[..., list[Any]] | None = None
    penalty: Callable[..., Callable[[int], Any]] | None = None
    harden: Callable[..., None] | None = None
    audit: Callable[..., list[dict[str, Any]]] | None = None


@cache
def defences() -> dict[str, Defence]:
    """Every defence by name, in the order of the files' names."""
    found = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        defence = getattr(importlib.import_module(f"{__name__}.{module.name}"), "DEFENCE", None)
        if isinstance(defence, Defence):
            found[defence.name] = defence
    return found


def check_defences(names: Iterable[str]) -> None:
    """Raises ValueError for one that does not exist, or that watches instead of being attacked."""
    usable = [d.name for d in defences().values() if d.kind != "detection"]
    for name in names:
        if name not in usable:
            raise ValueError(f"defences: there is no defence ‘{name}’ to attack: choose from {', '.join(usable)}")
