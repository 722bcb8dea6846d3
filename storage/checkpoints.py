"""Names of checkpoints and their order: the one place that reads `memorised@20`.

base            the model before any training
context@0       the same, with the facts in what it is asked
memorised@E     after E epochs of stage 1
generalised@E   what stage 2 made of that
attacked@N      of an attack's cell, with N attack facts
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BASE = "base"
KINDS = (BASE, "context", "memorised", "generalised", "attacked")
KEPT = KINDS[2:]  # with weights of their own
_NAME = re.compile(r"([a-z0-9]+)@(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """A checkpoint's name in its parts. epoch: 0 for the base; of `attacked` the number of attack facts."""

    kind: str
    epoch: int = 0

    @classmethod
    def parse(cls, name: str) -> CheckpointName:
        """Any name in its parts; one without an epoch has epoch 0. A stage's, `stage2@20`, is read the same way."""
        match = _NAME.fullmatch(name)
        return cls(match[1], int(match[2])) if match else cls(name.partition("@")[0])

    @classmethod
    def kept(cls, name: str) -> CheckpointName | None:
        """Only what a run can have kept in a folder of that name: no base, nothing that leads out of the folder."""
        match = _NAME.fullmatch(name)
        return cls(match[1], int(match[2])) if match and match[1] in KEPT else None

    @property
    def order(self) -> tuple[int, int]:
        """Sorts base, memorised by epoch, generalised by epoch, attacked by facts; then what is none of these."""
        return KINDS.index(self.kind) if self.kind in KINDS else len(KINDS), self.epoch


def in_order(name: str) -> tuple[int, int]:
    """`CheckpointName.order` of a name, as a key to sort by."""
    return CheckpointName.parse(name).order


def order_sql(column: str) -> str:
    """The same order for `order by`, of a column of names."""
    places = " ".join(f"when '{kind}' then {place}" for place, kind in enumerate(KINDS))
    at = f"instr({column} || '@', '@')"
    kind = f"case substr({column}, 1, {at} - 1) {places} else {len(KINDS)} end"
    return f"{kind}, cast(substr({column}, {at} + 1) as integer)"
