"""The embedded base model: a tiny language model pre-trained on a synthetic multilingual world.

    python -m engine.base                     pre-train anew (config.yaml) and write the weights
    python -m tools.recipe_search evaluate    measure memorise-then-generalise on it

The committed weights lie in `weights/` (`WEIGHTS`), with their model card.
"""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights")
