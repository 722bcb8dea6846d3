"""The memory of the page's process, which the C library keeps in more pieces than it needs.

For threads glibc makes arenas, up to eight a core, and memory that one of them has free is of no use to the others: a
lab that many use for hours takes more and more. Elsewhere there is nothing like it, and nothing is done.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h
# Python's own lock lets one thread at a time ask for most of the memory: more arenas would save no waiting.
ARENAS = 2


def use_few_arenas() -> bool:
    """From now on; returns whether that can be. To be called before threads begin."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError, TypeError):
        return False
