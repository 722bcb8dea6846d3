"""What the lab's processes log: lines for people, or, with ROTE_LAB_LOG=json, one JSON object a line for programs."""

from __future__ import annotations

import logging
import os

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
    else:
        handler.setFormatter(logging.Formatter(PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
