"""The folder where Gradio keeps what is sent to it: the lab's own, for nobody else's eyes, and emptied by age.

Knows no Gradio, which reads from the environment where the folder is when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

FOLDER = "uploads"
# What is sent is read at once; a page that was left open may send its name again.
KEPT_SECONDS = 3600.0


def make_uploads(home: Path) -> Path:
    """The folder, which only this account reads, named to Gradio; without what earlier processes left long ago."""
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    empty_uploads(folder)
    return folder


def empty_uploads(folder: Path, older_than: float = KEPT_SECONDS) -> None:
    """Delete the files in it that are older than so many seconds, and then the empty folders."""
    before = time.time() - older_than
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                if (file := Path(place, name)).lstat().st_ctime < before:
                    file.unlink()
        for name in folders:
            with contextlib.suppress(OSError):  # not empty
                if (inner := Path(place, name)).lstat().st_mtime < before:
                    inner.rmdir()
