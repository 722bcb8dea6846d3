"""The lab's own model server: started by the first question, ended with the lab. The only door to it from the pages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.serving.client import ServerClient, ServingError
from engine.serving.served import ServedModel

ServerState = Literal["off", "starting", "ready", "paused", "restarting", "failed"]
PATIENCE_SECONDS = 180.0


class ServerFailed(RuntimeError):
    """No model server could be started; the text is a sentence that says why and what to do."""


@dataclass(frozen=True)
class ServerStatus:
    """How the model server is: `backend` is vllm, embedded or empty; `reason` says why it was taken."""

    state: ServerState
    backend: str = ""
    reason: str = ""
    message: str = ""


class ModelServer:
    """The embedded server as a child process of the page's server."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._client: ServerClient | None = None
        self._started = 0.0
        self._state: ServerState = "off"
        self._message = ""

    def status(self) -> ServerStatus:
        """How it is, from memory: cheap enough for every open page each second."""
        return ServerStatus(self._state, "embedded" if self._state != "off" else "", "", self._message)

    def client_for(self, served: ServedModel) -> ServerClient | None:
        """A client of a server that has the model, or None while it is on its way. Raises ServerFailed."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._client is not None
            if self._state != "ready":
                try:
                    self._client.health()
                    self._state = "ready"
                except ServingError:
                    if time.monotonic() - self._started > PATIENCE_SECONDS:
                        raise ServerFailed("the model server did not start in time: see its log") from None
                    return None
            return self._client

    def stop(self) -> None:
        """End it, if it was started."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._process = None
            self._state = "off"

    def _start(self) -> None:
        self._state = "starting" if self._process is None else "restarting"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder = self.home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "engine.serving.embedded", "--home", str(self.home), "--port", str(port)]
        with (folder / "model-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._client = ServerClient(f"http://127.0.0.1:{port}")
        self._started = time.monotonic()
