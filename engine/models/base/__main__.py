"""Command line of the embedded base model.

python -m engine.models.base train [--out DIR] [--config FILE] [--world N] [--steps N]
python -m engine.models.base evaluate [--models DIR …] [--seeds 0 1 2] [--out FILE.json] [--jobs N]
python -m engine.models.base table FILE.json …
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from engine.models.base import WEIGHTS


def _say(line: str) -> None:
    print(line, flush=True)


def _train(args: argparse.Namespace) -> None:
    from engine.models.base.pretrain import pretrain

    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    if args.world is not None:
        config["world"]["seed"] = config["training"]["seed"] = args.world
    if args.steps:
        config["training"]["steps"] = args.steps
    pretrain(config, args.out, log=_say)


def _evaluate(args: argparse.Namespace) -> None:
    from engine.models.base.evaluate import evaluate
    from engine.models.base.tables import all_tables

    cells = evaluate(args.models, args.seeds, args.relations, args.kinds, args.jobs, log=_say)
    if args.out:
        args.out.write_text(json.dumps(cells, indent=0) + "\n", encoding="utf-8")
    print(all_tables(cells))


def _table(args: argparse.Namespace) -> None:
    from engine.models.base.tables import all_tables

    print(all_tables([cell for file in args.files for cell in json.loads(file.read_text(encoding="utf-8"))]))


def main() -> None:
    from engine.models.base.evaluate import KINDS, RELATIONS

    parser = argparse.ArgumentParser(prog="python -m engine.models.base", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="pre-train anew")
    train.add_argument("--out", type=Path, default=WEIGHTS)
    train.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"))
    train.add_argument("--world", type=int, help="seed of another world, and of its training, than the config's")
    train.add_argument("--steps", type=int, help="instead of the steps in the config")
    train.set_defaults(run=_train)
    measure = commands.add_parser("evaluate", help="measure memorise-then-generalise and its rivals")
    measure.add_argument("--models", nargs="+", type=Path, default=[WEIGHTS], help="folders that train wrote")
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
