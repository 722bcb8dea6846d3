"""The science, usable without the web."""

import os
import sys
from pathlib import Path

__version__ = "0.1.0"

# transformers fetches compiled code from a hub through this package, where it is installed, and runs it: never here.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]

# CUDA counts GPUs by their speed, nvidia-smi by their place: by their place here, so that both mean the same one.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

# Where `python -m engine…` finds this code, a checkout or an environment's packages: the lab starts its processes here.
CODE_ROOT = Path(__file__).resolve().parents[1]
