"""How many bytes a run would download of a model of the hub: exactly the files that `engine.models.hub` fetches.

    python -m engine.models.hub_size NAME --parent PID    # writes them as JSON, or nothing where nobody says

The page asks in this process, which it can end at any moment and which may talk to the hub: the page's own may not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from engine.models.hub import asked_for, blobs_of
from engine.models.notices import TERMS
from engine.models.view import FILES, SETTINGS
from engine.models.weights import INDEX, WHOLE, weight_parts

ANSWER_SECONDS = 5.0


def download_size(name: str) -> int:
    """The bytes of a model's files that are not in the cache, as the hub tells them.

    Nothing is written into the cache. Raises what the library raises, ModelError for an index that cannot be read, and
    ValueError where the hub has no weights that are read or does not tell a size.
    """
    api = HfApi()
    about = api.model_info(name, files_metadata=True, timeout=ANSWER_SECONDS)
    files = {file.rfilename: file for file in about.siblings or ()}
    parts: tuple[str, ...] = ()
    if INDEX in files:
        with TemporaryDirectory(prefix="rote-lab-index-") as folder:
            api.hf_hub_download(name, INDEX, revision=about.sha, local_dir=folder, etag_timeout=ANSWER_SECONDS)
            parts = weight_parts(Path(folder))
    weights = parts or (WHOLE,)
    if missing := [part for part in weights if part not in files]:
        raise ValueError(f"the hub has no {missing[0]} of {name}")
    total, blobs = 0, blobs_of(name)
    for wanted in {*SETTINGS, *FILES, *TERMS, INDEX, *weights} & files.keys():
        file = files[wanted]
        if file.size is None:
            raise ValueError(f"the hub does not tell the size of {wanted} of {name}")
        # The cache calls a file by what the hub calls its content.
        content = file.lfs.sha256 if file.lfs else file.blob_id
        total += 0 if content and (blobs / content).is_file() else file.size
    return total


def main() -> int:
    """Write the bytes of one model to stdout. Exit status 1, without a word, where they cannot be had."""
    name = asked_for(__doc__)
    try:
        print(json.dumps({"bytes": download_size(name)}))
    except Exception:  # whatever it was, the run's own download will say it in words
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
