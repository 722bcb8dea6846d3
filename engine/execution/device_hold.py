"""An accelerator is a run's alone while it trains: model servers of the lab leave it first, and come back after."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlite_utils import Database

from engine.execution.failures import PlainError
from engine.hardware import device_key, gpus_together, is_exclusive
from engine.models.device import choose_device
from storage.devices import release_device, request_for_run
from storage.processes import ProcessName

logger = logging.getLogger("engine")

POLL_SECONDS = 0.5


@contextmanager
def device_held(db: Database, run: str, count: int, while_waiting: Callable[[], None]) -> Iterator[tuple[str, ...]]:
    """Hold this machine's device for the run, or `count` of its GPUs, as long as the block lasts; nothing to hold where
    it can be shared. Gives the UUIDs of the GPUs where there are several.

    `while_waiting` is called twice a second until all are free, and may raise to give up. Raises PlainError where
    there are fewer.
    """
    device = str(choose_device())
    gpus = _together(device, count)
    if not is_exclusive(device):
        yield ()
        return
    me = ProcessName.of()
    # In one order everywhere, so that no two runs wait for each other.
    held: list[str] = []
    try:
        for name in sorted(gpus) or [device_key(device)]:
            held.append(name)
            waiting = False
            while not request_for_run(db, name, run, me):
                if not waiting:
                    logger.info("waiting until the device (%s) is free", name)
                waiting = True
                while_waiting()
                time.sleep(POLL_SECONDS)
        yield gpus
    finally:
        for name in held:
            release_device(db, name, run)


def _together(device: str, count: int) -> tuple[str, ...]:
    """The UUIDs of so many GPUs; none for one device, and where processes share a processor."""
    if count == 1 or device.startswith("cpu"):
        return ()
    found = gpus_together(count) if device.startswith("cuda") else ()
    if len(found) < count:
        raise PlainError(
            f"The experiment trains on {count} devices together, and this machine has {max(1, len(found))} for it: "
            "set devices to what is here, or use LoRA."
        )
    return tuple(gpu.uuid for gpu in found)
