"""How a checkpoint represents the experiment's prompts: every layer's figures, and the states that the picture shows.

measured = measure_representations(loaded, experiment)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.evaluation.evaluate import asking
from engine.evaluation.representations.states import hidden_states, read_prompts
from engine.evaluation.representations.statistics import UnitSums, Value, figures
from engine.evaluation.representations.texts import POSITIONS, SPLITS, Text, key_of, sampled_texts
from engine.experiment import Experiment
from engine.models.loading import LoadedModel

PICTURED_LAYERS = 3


@dataclass(frozen=True)
class Figure(Value):
    """A figure of a layer (0: the embeddings) and a position."""

    position: str
    layer: int


@dataclass(frozen=True)
class Representations:
    """What a checkpoint showed. sample: stands for the sample (`texts.key_of`); points: (prompt, fact) of what is
    pictured; vectors: by layer, float16 (points, hidden size) of each one's last token, at length 1."""

    sample: str
    figures: tuple[Figure, ...]
    points: tuple[tuple[int, int], ...]
    vectors: dict[int, np.ndarray]


def measure_representations(
    loaded: LoadedModel, experiment: Experiment, *, on_rows: Callable[[int], None] = lambda rows: None
) -> Representations | None:
    """The figures and pictured states of a checkpoint of a resolved experiment; None where it asks for none.

    `on_rows(n)` is told of n more prompts, also of 0 as a sign of life, and may raise to stop. The same, bit for bit,
    each time on the same CPU. Raises EvaluationError when the model's states are not numbers.
    """
    texts = sampled_texts(experiment)
    if not texts:
        return None
    prompts = read_prompts(loaded.tokenizer, texts)
    facts = 1 + max(text.row for text in texts)
    counts, relations = np.zeros((facts, len(SPLITS)), int), np.zeros(facts, int)
    for text in texts:
        counts[text.row, text.split] += 1
        relations[text.row] = text.relation
    sums: np.ndarray | None = None
    pictured = {row: place for place, row in enumerate(r for r, text in enumerate(texts) if text.pictured)}
    vectors: dict[int, np.ndarray] = {}
    with asking(loaded) as model:
        for rows, states in hidden_states(model, prompts, on_rows=on_rows):
            states = at_length_one(states)
            positions, layers, _, size = states.shape
            if sums is None:
                sums = np.zeros((positions, layers, facts, len(SPLITS), size), np.float32)
                shown = pictured_layers(layers - 1)
                vectors = {layer: np.zeros((len(pictured), size), np.float16) for layer in shown}
            for place, row in enumerate(rows):
                sums[:, :, texts[row].row, texts[row].split] += states[:, :, place]
                if row in pictured:
                    for layer, kept in vectors.items():
                        kept[pictured[row]] = states[POSITIONS.index("last"), layer, place]
    assert sums is not None
    found = tuple(
        Figure(**vars(value), position=position, layer=layer)
        for p, position in enumerate(POSITIONS)
        for layer in range(sums.shape[1])
        for value in figures(UnitSums(sums[p, layer], counts, relations))
    )
    return Representations(key_of(texts), found, _points(texts), vectors)


def pictured_layers(layers: int) -> list[int]:
    """Which of the layers 1 to `layers` are pictured: a third of the way, two thirds, and the last."""
    return sorted({max(1, round(layers * part / PICTURED_LAYERS)) for part in range(1, PICTURED_LAYERS + 1)})


def at_length_one(states: np.ndarray) -> np.ndarray:
    """States divided by their lengths; one of length 0 stays as it is."""
    lengths = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / np.where(lengths > 0, lengths, 1.0)


def _points(texts: list[Text]) -> tuple[tuple[int, int], ...]:
    return tuple((text.prompt, text.fact) for text in texts if text.pictured)
