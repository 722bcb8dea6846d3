"""The models that the lab knows, on the page: what each is, and the button that fetches one in the background.

Installing is a process of its own, which ends with the lab. How far it is, it writes into the lab's folder, so that a
reload, a second tab or another browser shows it, and any of them may stop it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
import psutil

from app.shared.render import part
from app.shared.words import language_name
from engine import CODE_ROOT
from engine.models.catalogue import INSTALLABLE, KNOWN, installed, models_folder
from engine.models.installing import progress
from engine.models.source import EMBEDDED
from storage.audit import addition
from storage.database import open_database

MODELS = [*((about.title, name) for name, about in KNOWN.items()), ("Another model", "other")]


class Installer:
    """Starts and stops the process that installs a model into a lab's home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Begin, unless it is there or going on already. Raises NotAllowed for somebody who may only look."""
        if name not in INSTALLABLE or installed(name) or self.going_on(name):
            return
        with closing(open_database(self._home)) as db, addition(db, "fetched", "model", name, KNOWN[name].title):
            models_folder().mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "engine", "models", "install", name, "--home", str(self._home)]
        with (models_folder() / f".{name}.log").open("wb") as log:
            self._started[name] = subprocess.Popen(
                [*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=CODE_ROOT,
            )  # fmt: skip

    def stop(self, name: str) -> None:
        """End it; what was fetched stays for the next time. Raises NotAllowed for somebody who may only look."""
        if not self.going_on(name):
            return
        with closing(open_database(self._home)) as db, addition(db, "stopped fetching", "model", name, name):
            pass
        with contextlib.suppress(psutil.Error):
            if (process := self._started.get(name)) and process.poll() is None:
                process.terminate()
            elif (now := progress(name)) and (other := now.process()):
                other.terminate()

    def going_on(self, name: str) -> bool:
        """Whether it is being installed, by this lab or by the command line."""
        process = self._started.get(name)
        now = progress(name)
        return (process is not None and process.poll() is None) or bool(now and now.going_on)

    def shown(self, kind: Any) -> tuple[str, Any, Any, str]:
        """What is said of the chosen model, the updates of the buttons that fetch it and that stop; if it is there."""
        name = str(kind)
        if name not in KNOWN:
            return "", gr.update(visible=False), gr.update(visible=False), ""
        about, going_on, now = KNOWN[name], self.going_on(name), progress(name)
        there = name == EMBEDDED or installed(name) is not None
        percent = None
        if going_on and now and now.total:
            percent = round(100 * now.done / now.total)
        html = part(
            "design/known_model", model=name, about=about, there=there, going_on=going_on, now=now, percent=percent,
            languages=", ".join(map(language_name, about.languages)),
            lost=bool(now and not there and not going_on),
        )  # fmt: skip
        size = f"Fetch {about.title} ({about.download / 1e6:.0f} MB)"
        missing = not there and not going_on
        return (
            html,
            gr.update(visible=missing, value=size),
            gr.update(visible=going_on and not there),
            f"{name} {there}",
        )
