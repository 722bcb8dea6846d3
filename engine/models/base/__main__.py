"""Command line of the embedded base model.

python -m engine.models.base train [--out DIR] [--config FILE] [--steps N]
python -m engine.models.base evaluate [--model DIR] [--relations mother …] [--seeds 0 1 …] [--epochs 20 …]
                                       [--foreign]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from engine.models.base import WEIGHTS


def _train(args: argparse.Namespace) -> None:
    from engine.models.base.pretrain import pretrain

    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    if args.steps:
        config["training"]["steps"] = args.steps
    pretrain(config, args.out, log=lambda line: print(line, flush=True))


def _evaluate(args: argparse.Namespace) -> None:
    from engine.models.base.evaluate import evaluate

    evaluate(args.model, args.relations, args.seeds, args.epochs, args.foreign, args.threads)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.models.base", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="pre-train anew")
    train.add_argument("--out", type=Path, default=WEIGHTS)
    train.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"))
    train.add_argument("--steps", type=int, help="instead of the steps in the config")
    train.set_defaults(run=_train)
    measure = commands.add_parser("evaluate", help="measure memorise-then-generalise")
    measure.add_argument("--model", type=Path, default=WEIGHTS)
    measure.add_argument("--relations", nargs="+", default=["mother"])
    measure.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    measure.add_argument("--epochs", nargs="+", type=int, default=[20], help="stage 1 epochs to stop at")
    measure.add_argument("--foreign", action="store_true", help="facts with names from outside the word lists")
    measure.add_argument("--threads", type=int, default=1)
    measure.set_defaults(run=_evaluate)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
