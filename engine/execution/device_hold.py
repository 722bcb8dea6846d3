"""An accelerator is a run's alone while it trains: model servers of the lab leave it first, and come back after."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlite_utils import Database

from engine.hardware import device_key, is_exclusive
from engine.models.device import choose_device
from storage.devices import release_device, request_for_run
from storage.processes import ProcessName

logger = logging.getLogger("engine")

POLL_SECONDS = 0.5


@contextmanager
def device_held(db: Database, run: str, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold this machine's device for the run, as long as the block lasts; nothing to hold where it can be shared.

    `while_waiting` is called twice a second until the device is free, and may raise to give up.
    """
    device = str(choose_device())
    if not is_exclusive(device):
        yield
        return
    device = device_key(device)
    me, waiting = ProcessName.of(), False
    try:
        while not request_for_run(db, device, run, me):
            if not waiting:
                logger.info("waiting until the device (%s) is free", device)
            waiting = True
            while_waiting()
            time.sleep(POLL_SECONDS)
        yield
    finally:
        release_device(db, device, run)
