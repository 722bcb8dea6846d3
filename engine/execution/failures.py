"""Why a run failed, in one sentence that says what to do. The log keeps the whole story."""

from __future__ import annotations

import sqlite3

from engine.evaluation.batches import EvaluationError
from engine.models.out_of_memory import is_out_of_memory
from storage.trouble import is_disk_full, say_trouble


class PlainError(Exception):
    """An error whose message is already a sentence for the person."""


def explain_failure(error: BaseException) -> str:
    """One sentence for any exception that ended a run."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
        return (
            "The machine ran out of memory: choose a smaller batch size, LoRA instead of full fine-tuning, "
            "or a smaller model, then retry."
        )
    if is_out_of_memory(error):
        return (
            "The accelerator ran out of memory: choose a smaller batch size, LoRA instead of full fine-tuning, "
            "or a smaller model, then retry."
        )
    if is_disk_full(error):
        return "The disk is full: free some space (old runs can be deleted on the Runs page), then retry."
    if isinstance(error, sqlite3.Error):
        words = say_trouble(error)
        return f"{words[:1].upper()}{words[1:]}."
    if isinstance(error, PermissionError):
        return f"A file may not be read or written ({error.filename or text}): mend its permissions, then retry."
    if isinstance(error, (PlainError, ValueError, EvaluationError)) and text:
        return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    return f"Something unforeseen went wrong ({type(error).__name__}: {text[:200]}): the log has the details."
