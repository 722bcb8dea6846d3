"""Fetches a model from the Hugging Face hub into its cache: settings, tokenizer, safetensors and terms, nothing else.

    fetch("Qwen/Qwen2.5-1.5B", said)          # said("Downloading …", bytes done, bytes of all)
    python -m engine.models.hub NAME          # what that starts: the part that talks to the hub

The hub's library downloads with threads, and large files by code of its own, neither of which can be told to stop. So
it runs in a process that can be ended at any moment: by whoever waits for it, and with them. Files that came whole stay
in the cache, and the next try goes on from them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTimeout
from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from engine import CODE_ROOT
from engine.models.files import find_folder
from engine.models.folder_check import check_folder
from engine.models.installing import Said, silent
from engine.models.notices import TERMS
from engine.models.source import MissingError, ModelError, resolve_source
from engine.models.view import FILES, SETTINGS
from engine.models.weights import INDEX, WHOLE, weight_parts
from engine.parent import end_with_parent

POLL_SECONDS = 0.3
# After a lost connection the library itself goes on five times; then it is begun again after each of these pauses.
PAUSES = (2.0, 10.0, 30.0)
# Parts of files that nobody has written to for this long were left by a download that was killed.
ABANDONED_SECONDS = 600.0


def is_fetched(name: str) -> bool:
    """Whether the cache holds all of a model of the hub that is read. Raises ModelError for what cannot be used."""
    return not _missing(name)


def _missing(name: str) -> str:
    """What the cache lacks of a model, '' for nothing. Raises ModelError."""
    folder = find_folder(name)
    if folder is None:
        return "its config.json is missing"
    try:
        check_folder(folder)
    except MissingError as error:
        return str(error)
    return ""


def is_to_fetch(model: str) -> bool:
    """Whether an experiment's `model` is one of the hub that is not on this machine. Raises ModelError."""
    return isinstance(resolve_source(model), str) and not is_fetched(model)


def fetch(name: str, said: Said = silent, pauses: tuple[float, ...] = PAUSES) -> Path:
    """The folder of a model in the hub's cache, downloaded where it is not there; once, whoever else wants it.

    said: told some three times a second; may raise, which ends the download. Raises ModelError, one sentence.
    """
    if not is_fetched(name):
        with _turn(name, said):
            _fetch(name, said, pauses)
    if missing := _missing(name):
        raise ModelError(f"the hub does not have all that ‘{name}’ needs, so choose another model ({missing})")
    folder = find_folder(name)
    assert folder is not None
    return folder


@contextlib.contextmanager
def _turn(name: str, said: Said) -> Iterator[None]:
    """While nobody else in the lab downloads the model: two would fetch it twice, and drop each other's parts."""
    file = Path(constants.HF_HUB_CACHE, ".locks", blobs_of(name).parent.name, "rote-lab.lock")
    lock = FileLock(file)
    # Where nothing can be written, the download itself says why.
    with contextlib.suppress(OSError, NotImplementedError):
        file.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0)
            except LockTimeout:
                said("Another run downloads the model", 0, 0)
                time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _fetch(name: str, said: Said, pauses: tuple[float, ...]) -> None:
    """Download the model unless it is there. Raises ModelError."""
    for pause in (*pauses, None):
        if is_fetched(name):
            break
        sentence, transient = _try(name, said)
        if not sentence:
            break
        if pause is None or not transient:
            raise ModelError(sentence)
        end = time.monotonic() + pause
        while time.monotonic() < end:
            said("The connection to the hub was lost: trying again", 0, 0)
            time.sleep(min(POLL_SECONDS, pause))


def _try(name: str, said: Said) -> tuple[str, bool]:
    """Run one process to its end; returns why it failed, '' where it did not, and whether that may pass."""
    blobs = blobs_of(name)
    _drop_parts(blobs, lambda part: time.time() - part.stat().st_mtime > ABANDONED_SECONDS)
    before, old = _bytes(blobs), set(_parts(blobs))
    total, done = 0, 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.models.hub", name, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=output, cwd=CODE_ROOT,
            env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error"},
        )  # fmt: skip
        try:
            while process.poll() is None:
                told = _told(output.fileno())
                total, done = told.get("total", 0), max(done, min(_bytes(blobs) - before, told.get("total", 0)))
                said(_words(done, total), done, total)
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
            _drop_parts(blobs, lambda part: part not in old)
        told = _told(output.fileno())
    if process.returncode and "error" not in told:
        return f"the download of ‘{name}’ ended unexpectedly (exit code {process.returncode})", True
    return told.get("error", ""), told.get("transient", False)


def _told(output: int) -> dict[str, Any]:
    """What the process has written so far, its last whole line."""
    *lines, _ = os.pread(output, 2**20, 0).split(b"\n")
    return json.loads(lines[-1]) if lines else {}


def _words(done: int, total: int) -> str:
    if not total:
        return "Asking the hub for the model"
    unit, name, places = (1e9, "GB", 1) if total >= 1e9 else (1e6, "MB", 0)
    return f"Downloading the model: {done / unit:.{places}f} of {total / unit:.{places}f} {name}"


def blobs_of(name: str) -> Path:
    """Where the cache keeps the bytes of a model's files."""
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "blobs")


def _bytes(blobs: Path) -> int:
    total = 0
    for file in blobs.glob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += file.stat().st_size
    return total


def _parts(blobs: Path) -> list[Path]:
    return list(blobs.glob("*.incomplete"))


def _drop_parts(blobs: Path, whether: Callable[[Path], bool]) -> None:
    """Delete parts of files: the library begins a file anew, under another name."""
    for part in _parts(blobs):
        with contextlib.suppress(OSError):
            if whether(part):
                part.unlink()


def asked_for(what: str | None) -> str:
    """The model that a process is started about, `NAME --parent PID`; it ends with its parent. `what`: its help."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("name")
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    end_with_parent(arguments.parent)
    return str(arguments.name)


def main() -> int:
    """Download one model; what is to come, and why it failed, go to stdout as lines of JSON."""
    name = asked_for(__doc__)
    try:
        _download(name)
    except Exception as error:
        sentence, transient = explain(name, error)
        print(json.dumps({"error": sentence, "transient": transient}), flush=True)
        return 1
    return 0


def _download(name: str) -> None:
    """Settings first, since the index names the files of weights; then those. Raises what the library raises."""
    small = [*SETTINGS, *FILES, *TERMS, INDEX]
    folder = Path(snapshot_download(name, allow_patterns=small))
    wanted = [*small, *(weight_parts(folder) or [WHOLE])]
    files = snapshot_download(name, allow_patterns=wanted, dry_run=True)
    if not any(file.filename.endswith(".safetensors") for file in files):
        raise ModelError(
            f"the model ‘{name}’ of the hub has no weights in safetensors format, and no others are read: choose the "
            "version of the model with *.safetensors"
        )
    total = sum(file.file_size or 0 for file in files if file.will_download)
    free = shutil.disk_usage(constants.HF_HUB_CACHE).free
    if free < total:
        raise ModelError(
            f"downloading ‘{name}’ needs {total / 1e9:.1f} GB in {constants.HF_HUB_CACHE}, and {free / 1e9:.1f} GB are "
            "free: make room there, or put HF_HOME elsewhere"
        )
    print(json.dumps({"total": total}), flush=True)
    snapshot_download(name, allow_patterns=wanted)


def explain(name: str, error: Exception) -> tuple[str, bool]:
    """What kept a model from being downloaded, in one sentence that says what to do, and whether it may pass."""
    model, token = f"the model ‘{name}’", get_token()
    page = f"{constants.ENDPOINT}/{name}"
    causes = [error, error.__cause__]
    response = next((e.response for e in causes if isinstance(e, HfHubHTTPError)), None)
    status = response.status_code if response is not None else 0
    if isinstance(error, ModelError):
        return str(error), False
    if isinstance(error, GatedRepoError):
        if token:
            return f"{model} is gated, and the account of HF_TOKEN may not read it: ask for access on {page}", False
        return f"{model} is gated: accept its terms on {page}, then start the lab with that account’s HF_TOKEN", False
    if isinstance(error, RepositoryNotFoundError):
        private = "is private to others than HF_TOKEN’s account" if token else "is private, which needs HF_TOKEN=…"
        return f"{model} is not on the hub, or {private}: check its name, or give the whole path of a folder", False
    if status == 401:
        return f"the hub does not accept the token HF_TOKEN (it may have expired): {model} was not downloaded", False
    if any(isinstance(e, OfflineModeIsEnabled) for e in causes):
        return (
            f"{model} is not on this machine, and HF_HUB_OFFLINE=1 keeps the lab off the network: start the lab "
            "without it, or name a folder"
        ), False
    if isinstance(error, OSError) and error.errno:
        if error.errno in (28, 122):
            return f"the disk is full, so {model} was not downloaded: make room, or put HF_HOME elsewhere", False
        if isinstance(error, PermissionError):
            return f"{error.filename} may not be written, where {model} goes: mend its permissions", False
    reason = " ".join(str(error.__cause__ or error).split())[:160] or type(error).__name__
    sentence = f"{model} cannot be downloaded from {constants.ENDPOINT} ({reason}): check the connection, then retry"
    return sentence, status >= 500 or (not status and not isinstance(error, (ValueError, TypeError)))


if __name__ == "__main__":
    sys.exit(main())
