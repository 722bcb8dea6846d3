"""Makes the prepared base of an experiment before there is a run, for a vLLM that is started by hand or in a container.

python -m engine.commands.prepare --home HOME --experiment quick-lora --link served

`--link` names it HOME/prepared/NAME.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from engine.commands.mistake import Mistake
from engine.commands.run import read_experiment
from engine.models.catalogue import use_home
from engine.models.source import ModelError
from storage.database import default_home


def main() -> int:
    """Prints the folder. Exit status 0 when the base is there; else 2, and one sentence on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--experiment", metavar="PRESET|FILE", required=True)
    parser.add_argument("--link", metavar="NAME", help="also name it HOME/prepared/NAME")
    arguments = parser.parse_args()

    from engine.serving.prepared import prepare_base  # loads torch, after mistakes above were told

    home = (arguments.home or default_home()).expanduser().resolve()
    use_home(home)
    try:
        folder = prepare_base(home, read_experiment(arguments.experiment, [], None))
        if arguments.link:
            _link(folder, arguments.link)
    except (Mistake, ModelError, OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(folder)
    return 0


def _link(folder: Path, name: str) -> None:
    """A relative link, so that it also holds where the home is mounted at another path."""
    if not name.isidentifier():
        raise Mistake(f"‘{name}’ is no name for a link: use letters, digits and _")
    temporary = folder.with_name(f".{name}.{os.getpid()}")
    temporary.symlink_to(folder.name)
    temporary.replace(folder.with_name(name))


if __name__ == "__main__":
    sys.exit(main())
