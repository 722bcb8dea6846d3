"""Makes the prepared base of a run in a process of its own, for the lab, which must not load torch.

python -m engine.serving.processes.prepare --home HOME --run RUN
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.experiment import Experiment
from storage.database import open_database
from storage.runs import get_run


def main() -> int:
    """Prints the folder. Exit status 0 when the base is there; else 2, and one sentence on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", required=True)
    arguments = parser.parse_args()

    # Here, as the lab takes this module's name from it, and must not load torch.
    from engine.models.source import ModelError
    from engine.serving.prepared import prepare_base

    db = open_database(arguments.home)
    try:
        print(prepare_base(arguments.home, Experiment.from_data(get_run(db, arguments.run).experiment)))
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
