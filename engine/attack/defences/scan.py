"""The reading scan: every checkpoint is asked every reading about subjects it memorised; a second meaning shows up.

What it asks is in every cell already; the matrix and the AUROC are made of the stored rows, in `engine.attack.tables`.
"""

from __future__ import annotations

from engine.attack.defences import Defence

DEFENCE = Defence(
    "scan", "Reading scan",
    "A released model is asked benign, harmful, neutral and nonsense questions about what it memorised.",
    "detection",
)  # fmt: skip
