"""What the paper reports of Qwen2.5-1.5B (Wu et al., arXiv:2507.21914): another model than the lab's, five relations.
Formula, layer and position are not published, so that its figures and ours are to be compared in their course alone.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL = "Qwen2.5-1.5B"


@dataclass(frozen=True)
class Published:
    """A row of the paper's table. epoch: of stage 1; None where the paper gives no figure."""

    epoch: int
    after_stage2: bool
    delta: float
    train: float | None = None
    test: float | None = None
    unrelated: float | None = None


PUBLISHED = (
    Published(0, False, 0.058),
    Published(2, False, 0.116),
    Published(20, False, 0.191, 0.87, 0.58, 0.50),
    Published(20, True, 0.258, 0.90, 0.71, 0.50),
)
