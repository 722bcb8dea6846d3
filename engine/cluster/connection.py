"""The way to a cluster: `ray://HOST:10001` from outside of it (Ray Client), or `HOST:6379` from one of its machines.

Token authentication stays on: without a token, or where the cluster asks for none, there is no connection.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
USUAL_TOKEN_FILE = Path("~/.ray/auth_token")
CLIENT = "ray://"
# What can be asked of the head, and of Ray Client, without changing anything.
HEAD_METHOD, CLIENT_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/KVExists"
ANONYMOUS_SECONDS = 10.0
# Ray Client's proxy starts a process for each client, by a fork beside its threads: now and then that ends at once.
TRIES, NOT_STARTED = 4, "Starting Ray client server failed"
_ADDRESS = re.compile(r"(ray://)?[A-Za-z0-9.-]+:\d{1,5}|(ray://)?\[[0-9A-Fa-f:.]+\]:\d{1,5}")


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message is one sentence for a person."""


def check_address(address: str) -> None:
    """Refuse what is no address, before anything is queued, and a machine without Ray. Raises ClusterError."""
    if not _ADDRESS.fullmatch(address):
        raise ClusterError(
            f"‘{address}’ is no address of a cluster: write ray://HOST:10001, or HOST:6379 on one of its machines."
        )
    _ray()
    _check_token()


def connect(address: str) -> Any:
    """Connect this process to the cluster; returns the module `ray`. Raises ClusterError."""
    check_address(address)
    ray = _ray()
    check_asks_for_token(address)
    for left in reversed(range(TRIES)):
        try:
            # What the nodes print is theirs; a run's log comes with its messages.
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="rote-lab")
            break
        except Exception as error:  # of many kinds, by what went wrong where
            if not left or NOT_STARTED not in str(error):
                raise ClusterError(_refusal(address, error)) from error
            disconnect(ray)
            time.sleep(1)
    return ray


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # what goes wrong is said below, once
    os.environ.setdefault(MODE, "token")  # before Ray is imported, which reads it once
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Ray is not installed: `make ray` adds it, or `pip install --no-deps -r requirements-ray.txt`."
        ) from error
    return ray


def _check_token() -> None:
    """Raises ClusterError unless the connection is authenticated."""
    if os.environ[MODE].lower() != "token":
        raise ClusterError(
            f"{MODE} is ‘{os.environ[MODE]}’: the lab uses a cluster only with token authentication, so unset it."
        )
    if os.environ.get(TOKEN):
        return
    file = Path(os.environ.get(TOKEN_FILE) or USUAL_TOKEN_FILE).expanduser()
    if not file.is_file():
        raise ClusterError(f"There is no token for the cluster: copy its file to {file}, or set {TOKEN}.")


def check_asks_for_token(address: str) -> None:
    """Raises ClusterError when the cluster answers who has no token, and when nobody answers: Ray would wait."""
    import grpc  # beside Ray, in requirements-ray.txt

    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANONYMOUS_SECONDS).close()
    except (OSError, UnicodeError) as error:  # the latter of a name such as `a..b`
        raise ClusterError(_refusal(address, error)) from error
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return  # who has no certificate gets no answer either
    method = CLIENT_METHOD if address.startswith(CLIENT) else HEAD_METHOD
    with grpc.insecure_channel(address.removeprefix(CLIENT)) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=ANONYMOUS_SECONDS)
        except grpc.RpcError as error:
            silent = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
            if error.code() in silent:
                return
    raise ClusterError(
        f"The cluster at {address} asks for no token, so that anybody may run code there: start it with {MODE}=token."
    )


def _refusal(address: str, error: Exception) -> str:
    """Why there is no connection."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or "does not match" in text:
        there = re.search(r"started with: Ray: (\S+) Python: (\S+)", text)
        here = re.search(r"was started with: Ray: (\S+) Python: (\S+)", text[there.end() :] if there else text)
        if there and here:
            return (
                f"The cluster has Ray {there[1]}, Python {there[2]}, this machine Ray {here[1]}, Python {here[2]}: "
                "install the same on all machines."
            )
        return f"The cluster has another Ray or Python than this machine: install the same on all ({text[:200]})."
    if "uthenticat" in text or "token" in text.lower():
        return f"The cluster at {address} refuses the token of this machine: copy the cluster's own."
    reach = "its port is open to this machine, and its token is this machine's"
    if address.startswith(CLIENT):
        return f"No cluster answers at {address}: look whether its head runs with Ray Client, {reach} ({text[:160]})."
    return f"No cluster answers at {address}: look whether it runs, this machine belongs to it, {reach} ({text[:160]})."


def disconnect(ray: Any) -> None:
    """Leave the cluster, also one that is gone."""
    with contextlib.suppress(Exception):
        ray.shutdown()
