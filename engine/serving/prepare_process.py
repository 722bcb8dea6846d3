"""Makes the prepared base of a run in a process of its own, for those that must not load torch.

python -m engine.serving.prepare_process --home HOME --run RUN
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.experiment import Experiment
from storage.database import open_database
from storage.runs import get_run


def main() -> int:
    """Exit status 0 when the base is there; else 2, and one sentence on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", required=True)
    arguments = parser.parse_args()

    from engine.models.source import ModelError
    from engine.serving.prepared import prepare_base

    db = open_database(arguments.home)
    try:
        prepare_base(arguments.home, Experiment.from_data(get_run(db, arguments.run).experiment))
    except KeyError:
        print(f"there is no run {arguments.run} any more", file=sys.stderr)
        return 2
    except (ModelError, OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    finally:
        db.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
