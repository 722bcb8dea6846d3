"""What the lab's processes log: lines for people, or, with ROTE_LAB_LOG=json, one JSON object a line for programs."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType

from pythonjsonlogger.json import JsonFormatter

PLAIN = "%(asctime)s %(levelname)s %(message)s"


def in_json() -> bool:
    """Whether the environment asks for JSON."""
    return os.environ.get("ROTE_LAB_LOG", "").lower() == "json"


def set_up_logs() -> None:
    """Have this process log to standard error, from INFO on."""
    handler = logging.StreamHandler()
    if in_json():
        names = {"asctime": "at", "levelname": "level", "name": "logger", "process": "pid"}
        form = "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s"
        handler.setFormatter(JsonFormatter(form, rename_fields=names, json_ensure_ascii=False))
        # What Python itself would print beside the log.
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
    else:
        handler.setFormatter(logging.Formatter(PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    logging.getLogger("engine").critical("uncaught: %s", error, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_type is SystemExit or what.exc_value is None:
        return
    name = what.thread.name if what.thread else "a thread that is gone"
    about = (what.exc_type, what.exc_value, what.exc_traceback)
    logging.getLogger("engine").error("uncaught in %s: %s", name, what.exc_value, exc_info=about)
