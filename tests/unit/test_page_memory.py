"""The page's process has few arenas, however many threads ask for memory at the same time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Each thread keeps memory, so that the next one would get an arena of its own.
THREADS = """
import ctypes, re, sys, threading
from app.server.memory import use_few_arenas
if sys.argv[1] == "few" and not use_few_arenas():
    sys.exit(3)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(12)
def keep():
    together.wait()
    for _ in range(200):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=keep) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def arenas(which: str) -> int:
    done = subprocess.run([sys.executable, "-c", THREADS, which], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no arenas in this C library")
def test_many_threads_share_few_arenas() -> None:
    assert arenas("many") > 4 > arenas("few") >= 1
