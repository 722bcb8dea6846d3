"""Batches computed side by side: one thread of the CPU each, while the caller's thread reports and listens.

Why not several threads inside each operation, as torch does by itself: the models here are small, so such threads
mostly wait for each other (measured: 2 threads inside operations take 20 times as long as 1 when another program uses
a core), and the last bits of a sum would depend on their number. Whole batches side by side have neither problem.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from engine.hardware import cpu_threads

HEARTBEAT_SECONDS = 0.25

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):
    """Raised inside a batch that is no longer wanted."""


def compute(
    work: Callable[[Item, threading.Event], Result],
    items: Sequence[Item],
    device: torch.device,
    *,
    on_result: Callable[[Item, Result], None],
    on_wait: Callable[[], None] = lambda: None,
) -> None:
    """Call `work(item, stop)` for each item and `on_result(item, result)` as they finish, in the caller's thread.

    `on_wait` is called at least every quarter of a second. When it, `on_result` or a `work` raises, `stop` is set, what
    has not begun is dropped and the exception goes on to the caller. On a CPU as many items run at once as
    `cpu_threads` says, on an accelerator one; results do not depend on it.
    """
    threads = torch.get_num_threads()
    stop = threading.Event()
    pool = ThreadPoolExecutor(cpu_threads() if device.type == "cpu" else 1, thread_name_prefix="evaluation")
    try:
        torch.set_num_threads(1)
        item_of = {pool.submit(work, item, stop): item for item in items}
        pending = set(item_of)
        while pending:
            done, pending = wait(pending, HEARTBEAT_SECONDS, FIRST_COMPLETED)
            for future in done:
                on_result(item_of[future], future.result())
            on_wait()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
