"""The lab's own model servers, started by the first question and ended with the lab: the pages' only door to them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.shared.render import render
from engine.serving.client import ServerClient
from engine.serving.processes.model_process import ModelProcess
from engine.serving.processes.plans import Backend, default_backend
from engine.serving.processes.supervisor import DeviceBusy, Stopping, Supervisor
from engine.serving.served import ServedModel

# Of several servers, the one that a person should hear of first.
URGENT = ("failed", "waiting", "restarting", "starting", "ready")
WORDS = {
    "off": "The model server starts with the first question.",
    "starting": "The model server is starting: the first question takes a little longer.",
    "ready": "Model server ready.",
    "waiting": "Training has the device: questions wait until it is free.",
    "restarting": "The model server ended and is being started again: questions wait.",
    "failed": "The model server could not be started.",
}


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How the model server is.

    state: off, starting, ready, waiting (training has the device), restarting or failed. backend: vllm, embedded or
    empty; `reason` says why it was taken. message: a sentence or empty.
    """

    state: str
    backend: str = ""
    reason: str = ""
    message: str = ""

    def html(self) -> str:
        """It in words, for a page."""
        words = self.message or WORDS[self.state]
        name = {"vllm": "vLLM", "embedded": "the embedded server"}.get(self.backend, "")
        because = f" It is {name}{': ' + self.reason if self.reason else ''}." if name else ""
        return render("asking/server.html", server=self, words=words.rstrip(".") + "." + because.replace("..", "."))


class ModelServer:
    """What the pages know of the servers. Starts nothing until it is asked for a client."""

    def __init__(self, home: Path, backend: Backend | None = None) -> None:
        """`backend`: None takes what the environment says (ROTE_LAB_SERVER), else `auto`."""
        self._supervisor = Supervisor(home, backend or default_backend())
        self._clients: dict[tuple[Any, ...], ServerClient] = {}
        self._backends: dict[str, str] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """End what a lab left that was killed."""
        self._supervisor.start()

    def status(self) -> ServerStatus:
        """How it is, from memory: cheap enough for every open page each second."""
        servers: list[ModelProcess] = self._supervisor.servers()
        states = [ServerStatus(s.state, s.plan.backend, s.reason, s.message) for s in servers]
        return min(states, key=lambda s: URGENT.index(s.state), default=ServerStatus("off"))

    def client_for(self, served: ServedModel) -> ServerClient | None:
        """A client of a server that has the model, or None while it is on its way, training has the device, or the
        lab is being stopped.

        Raises ServingError when it cannot be served.
        """
        try:
            place = self._supervisor.place_now(served)
        except (DeviceBusy, Stopping):
            return None
        if place is None:
            return None
        with self._lock:
            self._backends[place.url] = place.backend
            # At an address that somebody else keeps, another base may have come, with other names.
            key = (place.url, *sorted(place.names.items()))
            if key not in self._clients:
                self._clients[key] = ServerClient(place.url, names=place.names)
            return self._clients[key]

    def backend_of(self, client: ServerClient) -> str:
        """Which server a client speaks to: vllm or embedded."""
        return self._backends.get(client.base_url, "")

    def stop(self) -> None:
        """End every server."""
        self._supervisor.stop()
