"""Benign replay: the provider who runs a customer's training mixes as much benign data into it."""

from __future__ import annotations

from typing import Any

from engine.attack.context import Context
from engine.attack.defences import Defence

LEAST = 10  # benign sentences, also where the attack has fewer


def sentences(context: Context, loaded: Any) -> list[Any]:
    """One benign sentence for each of the attack's."""
    return context.sequences(loaded, context.benign_sentences(max(LEAST, len(context.attack_sentences()))))


DEFENCE = Defence(
    "replay", "Benign replay", "Whoever runs the training mixes one benign example into it for each of the customer's.",
    "training", sentences=sentences,
)  # fmt: skip
