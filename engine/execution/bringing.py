"""What a run's model needs before the run takes the device: to be downloaded from the hub, or unpacked."""

from __future__ import annotations

import logging

from engine.execution.progress import Progress
from engine.models.files import find_folder
from engine.models.gguf import converted
from engine.models.hub import fetch, is_to_fetch
from engine.models.source import gguf_file

logger = logging.getLogger("engine")


def bring_model(model: str, progress: Progress) -> None:
    """Download or convert an experiment's `model` where that was not done yet, and tell how far it is.

    What `progress` raises, when somebody stops the run, ends a download. Raises ModelError and OSError.
    """
    if gguf_file(model) and find_folder(model) is None:
        progress.advance(0, force=True, stage="loading", message="Converting the GGUF file, once")
        converted(model)
    elif is_to_fetch(model):
        fetch(
            model, lambda words, done, total: progress.advance(0, stage="fetching", message=words, part=[done, total])
        )
