"""How far the installation of a model is: a small file that the installing process writes and the page reads.

with reporting("gemma-3-270m") as said:
install("gemma-3-270m", said)
progress("gemma-3-270m")            # None unless it is going on, or has failed
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from engine.checks import shorten
from engine.models.catalogue import models_folder
from engine.models.source import ModelError

WRITE_SECONDS = 0.5
Said = Callable[[str, int, int], None]  # what is done, and bytes of how many


def silent(words: str, done: int, total: int) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Installation:
    """words: what is done; done of total: bytes, 0 where nobody counts them; error: why it ended, '' while it goes on.

    pid, began: of the process that installs.
    """

    words: str
    done: int
    total: int
    error: str
    pid: int
    began: float

    @property
    def going_on(self) -> bool:
        """Whether the process that wrote this still lives."""
        return not self.error and self.process() is not None

    def process(self) -> psutil.Process | None:
        """The process that installs, if it is this very one and no later one of the same number."""
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.began) < 1 and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None


def progress(name: str) -> Installation | None:
    """The last that was said of an installation, None where none was begun or the last one ended well."""
    try:
        data = json.loads(_file(name).read_text(encoding="utf-8"))
        return Installation(
            str(data["words"]), int(data["done"]), int(data["total"]), str(data["error"]), int(data["pid"]),
            float(data["began"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def reporting(name: str) -> Iterator[Said]:
    """Write down how far it is for as long as the block runs, and why it failed if it does."""
    last: list[Any] = ["", 0.0]

    def said(words: str, done: int, total: int) -> None:
        if words != last[0] or time.monotonic() - last[1] > WRITE_SECONDS:
            last[:] = [words, time.monotonic()]
            _write(name, words, done, total)

    try:
        yield said
    except (ModelError, OSError, MemoryError) as error:
        now = progress(name)
        if now is None or not now.going_on or now.pid == os.getpid():
            _write(name, "", 0, 0, shorten(" ".join(str(error).split()) or type(error).__name__, 400))
        raise
    except BaseException:
        now = progress(name)
        if now is not None and now.pid == os.getpid():
            _file(name).unlink(missing_ok=True)
        raise
    _file(name).unlink(missing_ok=True)


def _file(name: str) -> Path:
    return models_folder() / f".{name}.progress.json"


def _write(name: str, words: str, done: int, total: int, error: str = "") -> None:
    file = _file(name)
    about: dict[str, Any] = {"words": words, "done": done, "total": total, "error": error, "pid": os.getpid()}
    about["began"] = psutil.Process().create_time()
    with contextlib.suppress(OSError):  # a full disk is told by what it stops
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.write_text(json.dumps(about), encoding="utf-8")
        new.replace(file)
