"""The science, usable without the web."""

from pathlib import Path

# Where `python -m engine…` finds this code: processes of the lab are started from here.
CODE_ROOT = Path(__file__).resolve().parents[1]
