"""Keeps one model server: starts it, ends it when its lab ends, and leaves none of its processes behind.

python -m engine.serving.processes.keeper SECONDS COMMAND…    SECONDS: see `keep`

It leads a session of its own, so a lab that is killed does not take it along before it has ended the server and all
that the server has started. It learns of the lab's end from its standard input: a pipe that nobody writes to, whose
other end the lab alone holds, so that it closes however the lab ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from engine.serving.processes.sessions import end_session

ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def keep(command: list[str], end_seconds: float) -> int:
    """Run the command until it ends, the lab does, or a signal asks for its end.

    Returns its exit status, as a shell has it for a signal, and 0 when it was ended on purpose. `end_seconds`: how
    long it may take when it is asked to end.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()  # it ends its whole session below: that must be its own
    if sys.platform == "linux":
        # Children of a child that dies come to the keeper, not to the system.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # they wait for `sigwait`
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_begin)
    for end in (process.wait, lambda: os.read(0, 1)):
        threading.Thread(target=_signal_after, args=[end], daemon=True).start()
    signal.sigwait(ENDS)
    on_purpose = process.poll() is None
    # The server's own end first: it closes connections in order. Then whatever it left.
    if on_purpose:
        process.terminate()
        try:
            process.wait(end_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    end_session(os.getsid(0), end_seconds / 2 if on_purpose else 0, spare=os.getpid())
    code = process.wait()
    _collect_inherited()
    return 0 if on_purpose else code if code >= 0 else 128 - code


def _begin() -> None:
    """In the server's process, before it runs the command."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal_after(end: Callable[[], object]) -> None:
    end()
    os.kill(os.getpid(), signal.SIGTERM)


def _collect_inherited() -> None:
    """Read the ends of the children's children, which the keeper has inherited, so that no zombie stays."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    sys.exit(keep(sys.argv[2:], float(sys.argv[1])))
