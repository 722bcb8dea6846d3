"""The base model as it is served and trained on: the key tokens' rows added once, in a folder of its own.

python -m engine.serving.prepared --home HOME --run RUN    for the lab, which must not load torch

HOME/prepared/KEY/    config.json, model.safetensors, tokenizer.json …, base.json

`engine.models.loading.load_base` draws the rows by the key tokens' text, so every run with the same base, precision and
key tokens trains on exactly these weights, and an adapter of any of them fits on this folder. So is what stands around
a text: its tokenizer puts the beginning token in front of every text, or none, as training does, for vLLM and others.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from filelock import FileLock

from engine.experiment import Experiment
from engine.models.catalogue import use_home
from engine.models.checksums import damage
from engine.models.folders import replaced, whole
from engine.models.gguf import converted
from engine.models.identity import base_key, changed_base, is_base
from engine.models.loading import load_base, save_model
from engine.models.source import ModelError
from engine.serving.served import lost_base, prepared_folder, run_base_key
from storage.database import open_database
from storage.runs import get_run

DESCRIPTION = "base.json"
PREPARE_SECONDS = 1800


def prepare_base(home: Path, experiment: Experiment, key: str = "") -> Path:
    """The folder of the experiment's prepared base, made on the first call.

    key: of the base that a run was trained on, by default the one that is here now. Processes that ask at the same time
    wait for the one that makes it. Raises ModelError, also when the base is another one now, and OSError.
    """
    converted(experiment.model)
    key = key or base_key(experiment)
    folder = prepared_folder(home, key)
    if ready := _ready(folder):
        return ready
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{key}.lock"), timeout=PREPARE_SECONDS):
        if ready := _ready(folder):
            return ready
        loaded = load_base(experiment)
        if not is_base(key, experiment):
            raise ModelError(f"the run began from {changed_base(experiment.model)}: run the experiment again")
        with replaced(folder) as new:
            save_model(loaded, new)
            description = {
                "model": experiment.model,
                "precision": experiment.precision,
                "key_tokens": list(experiment.key_tokens),
                "model_text": experiment.model_text.model_dump(),
            }
            (new / DESCRIPTION).write_text(json.dumps(description, ensure_ascii=False, indent=1), encoding="utf-8")
    return folder


def precision_of(folder: Path) -> str:
    """The precision that a prepared base was made in. Raises ModelError when the folder is none."""
    try:
        precision = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no prepared base: delete it, and it is made anew") from error
    if not re.fullmatch("auto|float32|mixed|bfloat16", str(precision)):
        raise ModelError(f"{folder / DESCRIPTION} names the precision ‘{precision}’: delete the folder")
    return str(precision)


def _ready(folder: Path) -> Path | None:
    there = whole(folder)
    return there if there is not None and (there / DESCRIPTION).is_file() and not damage(there) else None


def main() -> int:
    """Prepares the base of a run. Exit status 0 when it is there; else 2, and one sentence on standard error."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", required=True)
    arguments = parser.parse_args()
    use_home(arguments.home)
    db = open_database(arguments.home)
    try:
        experiment = Experiment.from_record(get_run(db, arguments.run).experiment)
        if lost := lost_base(arguments.home, arguments.run, experiment):
            raise ModelError(lost)
        prepare_base(arguments.home, experiment, run_base_key(arguments.home, arguments.run, experiment))
    except KeyError:
        print(f"there is no run {arguments.run} any more", file=sys.stderr)
        return 2
    except (ModelError, OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
