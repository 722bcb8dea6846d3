"""Which models whoever asks may name: all, unless the lab's page says otherwise for the person whom it serves.

with only(permits(("Qwen/*", "/data/models/*"))): ...
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from engine.checks import shorten
from engine.models.catalogue import KNOWN
from engine.models.paper_models import PAPER_MODELS

Permits = Callable[[str], bool]
_PERMITS: ContextVar[Permits | None] = ContextVar("permits", default=None)


def is_permitted(model: str) -> bool:
    """Whether whoever asks may use the model of that name, or look whether there is one."""
    permits = _PERMITS.get()
    return permits is None or permits(model)


def not_permitted(model: str) -> str:
    """What is said of a model that is not."""
    return (
        f"‘{shorten(model, 60)}’ is not among the models that you may use: take one that the lab knows, or ask an "
        "admin of this lab"
    )


@contextmanager
def only(permits: Permits | None) -> Iterator[None]:
    """Within the block only these models may be named; None for all."""
    token = _PERMITS.set(permits)
    try:
        yield
    finally:
        _PERMITS.reset(token)


def permits(patterns: Sequence[str]) -> Permits:
    """The models that the lab knows, the paper's, and those of these patterns: names of the hub (`Qwen/*`), or folders
    and files by their whole path (`/data/models/*`), which is told before `..` or a link could lead elsewhere."""

    def permitted(model: str) -> bool:
        if model in KNOWN or model in PAPER_MODELS:
            return True
        try:
            path = Path(model).expanduser().resolve()
        except (OSError, RuntimeError, ValueError):  # too long for one, or of nobody
            return False
        on_disk = [pattern for pattern in patterns if pattern.startswith(("/", "~"))]
        if any(fnmatch.fnmatchcase(str(path), str(Path(pattern).expanduser())) for pattern in on_disk):
            return True
        # A name of the hub that is a path, too, is a path: `Qwen/x` below the folder that the lab was started in.
        named = any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns if pattern not in on_disk)
        return named and ".." not in model and not path.exists()

    return permitted
