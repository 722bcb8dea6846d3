"""A socket on the loopback address, taken before anything slow is done, so that a port in use is said at once."""

from __future__ import annotations

import contextlib
import errno
import socket
import time

HOST = "127.0.0.1"
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 2.0


class PortInUse(ValueError):
    """Another program listens there; the message is one sentence that says what to do."""


def take_port(port: int) -> socket.socket:
    """A bound socket on 127.0.0.1; port 0 takes any free one (`getsockname()[1]`). Raises PortInUse."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
        # Without this, a second socket may be bound to the same port until one of them listens.
        taken.listen(128)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} is in use: choose another one, or 0 for any that is free") from error
        if error.errno == errno.EACCES:
            raise PortInUse(f"port {port} may not be used by this user: choose one above 1023") from error
        raise
    return taken


def free_port(wish: int | None = None, patience: float = PATIENCE_SECONDS) -> int:
    """The wished port of the loopback address if it is free within `patience` seconds, else any free one.

    The threads of a killed server may hold its port a moment longer than the server itself is seen.
    """
    end = time.monotonic() + patience
    while wish:
        with contextlib.suppress(PortInUse), take_port(wish):
            return wish
        if time.monotonic() > end:
            break
        time.sleep(POLL_SECONDS)
    with take_port(0) as taken:
        return taken.getsockname()[1]
