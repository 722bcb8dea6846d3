"""Pre-train the embedded base model: python -m engine.base [--out DIR] [--config FILE] [--world N] [--steps N]

What the trained models show is measured by tools/recipe_search.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from engine.base import WEIGHTS
from engine.base.pretrain import pretrain


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Train anew, and write weights, tokenizer and what they were trained with into a folder."""
    parser = argparse.ArgumentParser(prog="python -m engine.base", description="Pre-train the embedded base model.")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"))
    parser.add_argument("--world", type=int, help="seed of another world, and of its training, than the config's")
    parser.add_argument("--steps", type=int, help="instead of the steps in the config")
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    if args.world is not None:
        config["world"]["seed"] = config["training"]["seed"] = args.world
    if args.steps:
        config["training"]["steps"] = args.steps
    pretrain(config, args.out, log=_say)


if __name__ == "__main__":
    main()
