"""A real cluster of Ray on this machine: a head without processors, and nodes that can be killed as a machine dies."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import psutil

from engine.serving.listening import free_port
from tests.integration.lab import ROOT, wait_until


def use_token(home_of_nodes: Path) -> None:
    """Have every process of Ray that this one starts ask for a token, find this lab's code, and keep its models here.

    Before Ray is imported, which reads the first of these once.
    """
    os.environ |= {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT), "ROTE_LAB_HOME": str(home_of_nodes),
    }  # fmt: skip


class Machines:
    """The cluster. `address`: for a process on one of its machines; `client`: from outside, by Ray Client."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster  # after `use_token`

        self._port = free_port()
        head = {"num_cpus": 0, "ray_client_server_port": self._port, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address, self.client = self._cluster.address, f"ray://127.0.0.1:{self._port}"
        self.nodes = [self.add() for _ in range(nodes)]

    def add(self, cpus: int = 1) -> Any:
        """Another node."""
        return self._cluster.add_node(num_cpus=cpus)

    def kill(self, node: Any) -> list[psutil.Process]:
        """Kill everything of a node with SIGKILL, as a machine that loses its power; returns what was killed."""
        raylet = psutil.Process(_raylet(node))
        processes = [raylet, *raylet.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not raylet.is_running() or raylet.status() == psutil.STATUS_ZOMBIE, "the end of the node")
        return processes

    def trains(self, node: Any) -> list[psutil.Process]:
        """The training processes on a node."""
        try:
            children = psutil.Process(_raylet(node)).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for child in children:
            with contextlib.suppress(psutil.Error):
                if "engine.execution.training_process" in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)
