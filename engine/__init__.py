"""The science, usable without the web."""

from pathlib import Path

__version__ = "0.1.0"

# Where `python -m engine…` finds this code, a checkout or an environment's packages: the lab starts its processes here.
CODE_ROOT = Path(__file__).resolve().parents[1]
