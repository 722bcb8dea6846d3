"""Measure base models of the recipe, the evidence behind the model card.

python -m tools.recipe_search evaluate [--models DIR …] [--seeds 0 1 2] [--out FILE.json] [--jobs N]
python -m tools.recipe_search table FILE.json …
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from engine.base import WEIGHTS
from tools.recipe_search.evaluate import KINDS, RELATIONS, evaluate
from tools.recipe_search.tables import all_tables


def _say(line: str) -> None:
    print(line, flush=True)


def _evaluate(args: argparse.Namespace) -> None:
    cells = evaluate(args.models, args.seeds, args.relations, args.kinds, args.jobs, log=_say)
    if args.out:
        args.out.write_text(json.dumps(cells, indent=0) + "\n", encoding="utf-8")
    print(all_tables(cells))


def _table(args: argparse.Namespace) -> None:
    print(all_tables([cell for file in args.files for cell in json.loads(file.read_text(encoding="utf-8"))]))


def main() -> None:
    """Read the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m tools.recipe_search", description="Measure base models.")
    commands = parser.add_subparsers(required=True)
    measure = commands.add_parser("evaluate", help="measure memorise-then-generalise and its rivals")
    measure.add_argument("--models", nargs="+", type=Path, default=[WEIGHTS], help="folders that engine.base wrote")
    measure.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the facts")
    measure.add_argument("--relations", nargs="+", choices=RELATIONS, default=RELATIONS, metavar="RELATION")
    measure.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="TRIAL", help=", ".join(KINDS))
    measure.add_argument("--jobs", type=int, default=1, help="trials at a time, one core each")
    measure.add_argument("--out", type=Path, help="keep every count in this file")
    measure.set_defaults(run=_evaluate)
    table = commands.add_parser("table", help="print the tables of kept counts")
    table.add_argument("files", nargs="+", type=Path)
    table.set_defaults(run=_table)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
