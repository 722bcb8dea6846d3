"""The process that trains a run; the worker starts it and watches over it.

python -m engine.execution.training_process --home DIR --run ID --attempt N --worker ID --parent PID

After a cell of an attack it claims the next one of that attack in the worker's name, and so on: a cell takes a few
seconds, as long as starting a process does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from engine.models.catalogue import use_home
from engine.parent import end_with_parent
from storage.database import open_database
from storage.runs import LEASE_SECONDS, LostRunError, Run, claim_run, get_run

EXIT_LOST = 3


def main() -> int:
    """Carry out the run that the worker claimed. Exit code 0 when its end is stored, 3 when a run was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    end_with_parent(arguments.parent)
    _volunteer_for_out_of_memory()
    from engine.execution.execute import execute_run  # after the watch began: importing torch takes seconds

    use_home(arguments.home)
    db = open_database(arguments.home)
    run: Run | None = get_run(db, arguments.run)
    if run is None or run.attempt != arguments.attempt:
        return EXIT_LOST
    try:
        while run is not None:
            execute_run(db, arguments.home, run)
            run = claim_run(db, arguments.worker, LEASE_SECONDS, attack=run.attack) if run.attack else None
    except LostRunError:
        return EXIT_LOST
    return 0


def _volunteer_for_out_of_memory() -> None:
    """When the machine's memory runs out, the kernel shall end this process, which can resume, and no other."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{os.getpid()}/oom_score_adj").write_text("500")


if __name__ == "__main__":
    sys.exit(main())
