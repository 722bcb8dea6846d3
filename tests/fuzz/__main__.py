"""Feed the lab what nobody should type, and count what it said: python -m tests.fuzz [--inputs 20000] [--seed 0]

Prints a line for each target. Exit code 1 when an input gave a traceback, or was changed without a word.
"""

from __future__ import annotations

import argparse
import sys
import traceback

from tests.fuzz import descriptions, pages, server, tables
from tests.fuzz.target import Report, Target

TARGETS: tuple[Target, ...] = (*descriptions.TARGETS, *tables.TARGETS, *pages.TARGETS, *server.TARGETS)


def run_all(inputs: int, seed: int, only: str = "") -> list[Report]:
    """Every target whose name holds `only`, each with its share of the inputs."""
    chosen = [target for target in TARGETS if only in target.name]
    shares = sum(target.share for target in chosen)
    reports = []
    for target in chosen:
        report = target.run(-(-inputs * target.share // shares), seed)
        print(line(report), flush=True)
        if report.fault:
            traceback.print_exception(report.fault, limit=-6)
        reports.append(report)
    return reports


def line(report: Report) -> str:
    """One target in one line."""
    counts = ", ".join(f"{number:,} {name}" for name, number in sorted(report.outcomes.items()))
    state = "FAULT" if report.fault else "ok"
    return f"{state:5} {report.name}: {report.inputs:,} inputs ({counts}) in {report.seconds:.0f} s"


def main() -> int:
    """Exit code 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a target's name")
    arguments = parser.parse_args()
    with pages.LASTING, server.LASTING:
        reports = run_all(arguments.inputs, arguments.seed, arguments.only)
    faults = sum(report.fault is not None for report in reports)
    total, seconds = sum(report.inputs for report in reports), sum(report.seconds for report in reports)
    print(f"{total:,} inputs from seed {arguments.seed} in {seconds:.0f} s: {faults} targets with a fault")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
