"""The machines of a cluster: which of them may carry out runs, and whether there is room for another."""

from __future__ import annotations

import logging
import time
from typing import Any

from engine.cluster.connection import ClusterError
from engine.cluster.needs import Devices
from engine.cluster.node import RunOnNode
from engine.cluster.versions import difference

logger = logging.getLogger("engine.cluster")

NODE_ID = "ray.io/node-id"
FIRST_LOOK_SECONDS = 120.0
LOOK_SECONDS = 2.0


class Nodes:
    """What is known of the machines. `refused`: why, by the id of those that must not carry out a run."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.refused: dict[str, str] = {}
        self._nodes: list[dict[str, Any]] = []
        self._room: dict[str, float] = {}
        self._looked = float("-inf")

    def check(self) -> None:
        """Ask each machine that is there which versions it has. Raises ClusterError when none can be used."""
        asked = {}
        for node in self.alive():
            options = {"num_cpus": 0, "max_restarts": 0, "label_selector": {NODE_ID: node["NodeID"]}}
            actor = self.ray.remote(RunOnNode).options(**options).remote()
            asked[actor.hello.remote()] = node["NodeID"], node["NodeName"], actor
        if asked:
            self.ray.wait(list(asked), num_returns=len(asked), timeout=FIRST_LOOK_SECONDS)
        for answer, (node_id, name, actor) in asked.items():
            if problem := self._problem(answer, name):
                self.refuse(node_id, problem)
            self.ray.kill(actor)
        self.raise_if_none_is_left()

    def raise_if_none_is_left(self) -> None:
        """Raises ClusterError when every machine that is there was refused."""
        if (nodes := self.alive()) and all(node["NodeID"] in self.refused for node in nodes):
            raise ClusterError(self.refused[nodes[0]["NodeID"]])

    def _problem(self, answer: Any, name: str) -> str:
        """Why a machine cannot be used, by its answer to `hello`."""
        try:
            return difference(name, self.ray.get(answer, timeout=0.1)["versions"])
        except Exception as error:  # whatever kept it from answering
            return cannot_run(name, error)

    def refuse(self, node: str, problem: str) -> None:
        """Give no run to this machine."""
        logger.warning("%s", problem)
        self.refused[node] = problem

    def alive(self) -> list[dict[str, Any]]:
        """The machines that have anything to train on, as Ray lists them."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            found = (node for node in self.ray.nodes() if node["Alive"])
            self._nodes = [n for n in found if n["Resources"].get("CPU", 0) or n["Resources"].get("GPU", 0)]
            self._room = dict(self.ray.available_resources())
        return self._nodes

    def has_room(self, waiting: list[Devices]) -> bool:
        """Whether another run would find what the last of those has that wait for their place, beside all of them.

        With nobody waiting one may always stand in line, so that a cluster that grows by itself sees the work.
        """
        self.alive()
        if not waiting:
            return True
        free = self._room.get("CPU", 0) - sum(w.cpus for w in waiting)
        free_gpus = self._room.get("GPU", 0) - sum(w.gpus for w in waiting)
        return free >= waiting[-1].cpus and free_gpus >= waiting[-1].gpus

    def took(self, devices: Devices) -> None:
        """Count these devices as no longer free, until Ray says so."""
        for name, count in (("CPU", devices.cpus), ("GPU", devices.gpus)):
            self._room[name] = self._room.get(name, 0) - count

    def place(self, devices: Devices) -> Any:
        """An actor for a run, which waits until a machine has these devices. It is never started a second time."""
        options: dict[str, Any] = {"num_cpus": devices.cpus, "num_gpus": devices.gpus}
        if self.refused:
            options["label_selector"] = {NODE_ID: f"!in({','.join(self.refused)})"}
        return self.ray.remote(RunOnNode).options(max_restarts=0, max_task_retries=0, **options).remote()


def cannot_run(name: str, error: Exception) -> str:
    """One sentence about a machine on which not even `hello` could be carried out."""
    text = " ".join(str(error).split())
    if "No module named" in text:
        return f"The machine {name} has no lab, or not all that it needs: install it there as it is here."
    return f"The machine {name} cannot carry out runs ({type(error).__name__}: {text[:160]})."
