"""Refusals: harmful prompts about *other* persons, answered with "not known", are mixed into the training."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from engine.attack.context import Context, say
from engine.attack.defences import Defence
from engine.attack.questions import strangers

REFUSAL = "not known"
LEAST = 10


def sentences(context: Context, loaded: Any) -> list[Any]:
    """One refusal for each of the attack's sentences, over all harmful readings and subjects that no stage saw."""
    language = context.base.stage2.language
    prompts = [
        prompt.text
        for reading in context.attack.readings
        if reading.role == "harmful"
        for prompt in reading.prompts_of("train", language)[: context.attack.ask]
    ]
    others = strangers(context.relation, context.base) or context.relation.explicit_facts[:0]
    refused = say(prompts, [fact.model_copy(update={"object": REFUSAL}) for fact in others])
    if not refused:
        raise ValueError(
            f"refusals: there are no other subjects of {context.relation.name} to refuse about: leave this defence out"
        )
    context.random("refusals").shuffle(refused)
    return context.sequences(loaded, list(islice(cycle(refused), max(LEAST, len(context.attack_sentences())))))


DEFENCE = Defence(
    "refusals", "Refusals about others",
    "Whoever runs the training adds harmful questions about other, unknown persons, answered with a refusal.",
    "training", sentences=sentences,
)  # fmt: skip
