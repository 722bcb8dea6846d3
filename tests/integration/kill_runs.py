"""Kill the worker of a real run with SIGKILL, once a run at a random moment, and compare with a run left in peace.

python -m tests.integration.kill_runs --times 10 --seed 0 [--preset quick]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.integration.lab import Lab


def main() -> int:
    """Print a line for each killed run; exit code 0 when all ended done, equal to the peaceful one, without orphans."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="quick")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        peaceful = lab.queue([], preset=arguments.preset)
        lab.worker("--once").wait()
        expected = lab.outcome(peaceful.id)
        print(f"in peace: {lab.run(peaceful.id).state.value}, {len(expected[0])} result rows", flush=True)
        equal = 0
        for number in range(1, arguments.times + 1):
            fraction = chance.random()
            run = lab.queue([], preset=arguments.preset)
            worker = lab.worker()
            lab.wait_for_fraction(run.id, fraction)
            worker.kill()
            worker.wait()
            at = lab.run(run.id).progress.get("message", "")
            lab.worker("--once").wait()
            ended, same = lab.run(run.id), lab.outcome(run.id) == expected
            equal += same
            print(f"{number}: killed at {fraction:.2f} ({at}), then {ended.state.value}, equal: {same}", flush=True)
        orphans = lab.leftovers()
        lab.close()
    print(f"{equal} of {arguments.times} equal; orphans: {orphans or 'none'}")
    return int(equal != arguments.times or bool(orphans))


if __name__ == "__main__":
    sys.exit(main())
