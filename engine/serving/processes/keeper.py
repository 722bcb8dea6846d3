"""Keeps one model server: starts it, ends with it, and leaves none of its processes behind.

python -m engine.serving.processes.keeper --home HOME --server ID -- COMMAND…

The keeper leads a session of its own, so the server outlives a lab that is killed: the next lab takes it over by its
row in the database. When nobody has taken it over for a while, or the row or the home is gone, the keeper ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from engine.serving.processes.sessions import end_session
from storage.processes import lives

POLL_SECONDS = 0.2
LOOK_SECONDS = 2.0
# How long a server whose lab has died waits for the next one.
ORPHAN_SECONDS = 120.0
END_SECONDS = 10.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Keeper:
    """The loop around one child process."""

    def __init__(self, home: Path, server: str, command: list[str], orphan_seconds: float, end_seconds: float) -> None:
        self.database = home / "lab.db"
        self.server, self.command = server, command
        self.orphan_seconds, self.end_seconds = orphan_seconds, end_seconds
        self.ending = False
        self._wanted_at = time.monotonic()

    def keep(self) -> int:
        """Run the command to its end; returns its exit status, 0 when it was ended on purpose."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        if os.getsid(0) != os.getpid():
            os.setsid()  # it ends its whole session below: that must be its own
        if sys.platform == "linux":
            # Children of a child that dies come to the keeper, not to the system.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
        looked = time.monotonic()
        while process.poll() is None and not self.ending:
            # Returns as soon as the server ends, so that it is soon started again.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                self.ending = self.ending or not self._wanted()
        # The server's own end first: it closes connections in order. Then whatever it left.
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(self.end_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
        end_session(os.getsid(0), self.end_seconds / 2 if self.ending else 0, spare=os.getpid())
        code = process.wait()
        _collect_adopted()
        return 0 if self.ending else code if code >= 0 else 128 - code

    def _end(self, *_: object) -> None:
        self.ending = True

    def _wanted(self) -> bool:
        """Whether the row is there and somebody watches over it, or did not long ago."""
        try:
            db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
            try:
                row = db.execute("select owner_pid, owner_started from servers where id = ?", [self.server]).fetchone()
            finally:
                db.close()
        except sqlite3.Error:
            # Locked for long, or the home is gone: only the second is an end.
            return self.database.exists()
        if row is None:
            return False
        if lives(*row):
            self._wanted_at = time.monotonic()
        return time.monotonic() - self._wanted_at < self.orphan_seconds


def _collect_adopted() -> None:
    """Read the ends of the children's children, which the keeper has inherited, so that no zombie stays."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Exit status: the server's own, 0 when it was ended on purpose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--orphan-seconds", type=float, default=ORPHAN_SECONDS)
    parser.add_argument("--end-seconds", type=float, default=END_SECONDS, help="patience when asked to end")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    return Keeper(arguments.home, arguments.server, command, arguments.orphan_seconds, arguments.end_seconds).keep()


if __name__ == "__main__":
    sys.exit(main())
