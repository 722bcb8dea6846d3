"""Makes a prepared base in a process of its own, for those that must not load torch, and before there is a run.

python -m engine.commands.prepare --home HOME --run RUN
python -m engine.commands.prepare --home HOME --experiment quick-lora --link served

`--link` points HOME/prepared/NAME at it, for a vLLM that is started by hand or in a container of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from engine.commands.mistake import Mistake
from engine.commands.run import read_experiment
from engine.experiment import Experiment
from storage.database import default_home, open_database
from storage.runs import get_run


def main() -> int:
    """Prints the folder. Exit status 0 when the base is there; else 2, and one sentence on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=None)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="the base of this run")
    which.add_argument("--experiment", metavar="PRESET|FILE", help="the base of runs of this experiment")
    parser.add_argument("--link", metavar="NAME", help="also name it HOME/prepared/NAME")
    arguments = parser.parse_args()

    from engine.models.source import ModelError
    from engine.serving.prepared import prepare_base

    home = (arguments.home or default_home()).expanduser().resolve()
    try:
        folder = prepare_base(home, _experiment(home, arguments.run, arguments.experiment))
        if arguments.link:
            _link(folder, arguments.link)
    except KeyError:
        print(f"there is no run {arguments.run} any more", file=sys.stderr)
        return 2
    except (Mistake, ModelError, OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(folder)
    return 0


def _experiment(home: Path, run: str | None, experiment: str | None) -> Experiment:
    if experiment is not None:
        return read_experiment(experiment)
    db = open_database(home)
    try:
        return Experiment.from_data(get_run(db, run or "").experiment)
    finally:
        db.close()


def _link(folder: Path, name: str) -> None:
    """A relative link, so that it also holds where the home is mounted at another path."""
    if not name.isidentifier():
        raise Mistake(f"‘{name}’ is no name for a link: use letters, digits and _")
    temporary = folder.with_name(f".{name}.{os.getpid()}")
    temporary.symlink_to(folder.name)
    temporary.replace(folder.with_name(name))


if __name__ == "__main__":
    sys.exit(main())
