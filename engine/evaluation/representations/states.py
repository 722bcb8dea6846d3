"""Hidden states of prompts, one pass in batches: of every layer, at three places of each prompt.

Shorter prompts are filled up on the right, where a causal model's earlier places cannot see it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.evaluation.batches import CPU_BYTES, DIVERGED, EvaluationError, in_halves
from engine.evaluation.parallel import Stopped, compute
from engine.evaluation.plain import alone
from engine.evaluation.representations.texts import POSITIONS, Text
from engine.models.tokenise import around_in, encode

CPU_ROWS, GPU_ROWS = 64, 1024
# What a layer has at work beside its output, in sizes of that.
AT_WORK = 10


class NoStates(EvaluationError):
    """The model tells no hidden states."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text as the model reads it: its ids, the place of the subject's last token, and where its own tokens are."""

    ids: tuple[int, ...]
    subject: int
    own: tuple[int, int]


def read_prompts(tokenizer: Any, texts: Sequence[Text]) -> list[Prompt]:
    """The texts as they are asked (see `engine.models.tokenise.tokenise_questions`)."""
    around = around_in(tokenizer)
    start, prompts = len(around.before), []
    encoded = encode(tokenizer, [around.whole(t.text, t.object) for t in texts])
    for text, (ids, offsets) in zip(texts, encoded, strict=True):
        asked, answer = around.cut(text.text, ids, offsets)
        spans = offsets[: len(ids) - len(answer)]
        begun = len(asked) - len(spans)
        subject = [i for i, span in enumerate(spans) if _meets(span, start + text.subject[0], start + text.subject[1])]
        own = [i for i, span in enumerate(spans) if _meets(span, start, start + len(text.text))]
        # Where the tokenizer joins all of it to the object, what stands before the object.
        last = len(spans) - 1
        prompts.append(
            Prompt(
                tuple(asked),
                begun + max(subject, default=last),
                (begun + min(own, default=last), begun + max(own, default=last) + 1),
            )
        )
    return prompts


def _meets(span: tuple[int, int], start: int, end: int) -> bool:
    return span[1] > start and span[0] < end


def hidden_states(
    model: Any, prompts: Sequence[Prompt], *, on_rows: Callable[[int], None] = lambda rows: None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """(rows, states of these prompts): float32 (positions, layers + 1, rows, hidden size), batch after batch.

    Layer 0 are the embeddings; the last is what the vocabulary is scored with, behind the final norm. The batches
    depend on the model and the prompts alone. `on_rows(n)` is told of n more prompts, also of 0 as a sign of life, and
    may raise to stop. Raises EvaluationError when the states are not numbers, NoStates when the model tells none.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row].ids))
    size = _rows_at_once(model, max(len(prompt.ids) for prompt in prompts))
    parts = [order[start : start + size] for start in range(0, len(order), size)]

    def work(rows: list[int], stop: threading.Event) -> np.ndarray:
        if stop.is_set():
            raise Stopped
        with alone(model):
            halves = in_halves(lambda some: [_states(model, [prompts[row] for row in some])], rows)
        return np.concatenate(halves, axis=2)

    # A few at a time: they end in any order, and are wanted in one.
    for start in range(0, len(parts), 8):
        found: dict[int, np.ndarray] = {}

        def take(rows: list[int], states: np.ndarray, found: dict[int, np.ndarray] = found) -> None:
            found[rows[0]] = states
            on_rows(len(rows))

        some = parts[start : start + 8]
        compute(work, some, model.device, on_result=take, on_wait=lambda: on_rows(0))
        yield from ((rows, found[rows[0]]) for rows in some)


@torch.inference_mode()
def _states(model: Any, prompts: Sequence[Prompt]) -> np.ndarray:
    lengths = [len(prompt.ids) for prompt in prompts]
    width = max(lengths)
    ids = torch.tensor([[*prompt.ids, *[0] * (width - len(prompt.ids))] for prompt in prompts], device=model.device)
    settings: dict[str, Any] = {}
    if min(lengths) < width:
        places = torch.arange(width, device=model.device)
        settings["attention_mask"] = (places < torch.tensor(lengths, device=model.device)[:, None]).long()
    # The model below the vocabulary: no logits.
    found = model.base_model(ids, use_cache=False, output_hidden_states=True, **settings)
    layers = getattr(found, "hidden_states", None)
    if not layers:
        raise NoStates("this model tells no hidden states: set evaluation.representations.facts to 0")
    last, subject = [n - 1 for n in lengths], [prompt.subject for prompt in prompts]
    own = torch.zeros(len(prompts), width, device=model.device)
    for row, prompt in enumerate(prompts):
        own[row, prompt.own[0] : prompt.own[1]] = 1 / (prompt.own[1] - prompt.own[0])
    states = torch.stack([_at_positions(layer.float(), last, subject, own) for layer in layers], 1)
    if not bool(states.isfinite().all()):
        raise EvaluationError(DIVERGED)
    return states.cpu().numpy()


def _at_positions(layer: torch.Tensor, last: list[int], subject: list[int], own: torch.Tensor) -> torch.Tensor:
    """(positions, rows, hidden size), in the order of `POSITIONS`."""
    rows = range(len(last))
    # Only what is looked at: what fills up may hold anything.
    kept = torch.where(own[..., None] > 0, layer, 0.0)
    at = {"last": layer[rows, last], "subject": layer[rows, subject], "mean": torch.einsum("rtd,rt->rd", kept, own)}
    return torch.stack([at[position] for position in POSITIONS])


def _rows_at_once(model: Any, tokens: int) -> int:
    """How many prompts to read at once: by a fixed budget on a CPU, and a quarter of what the model leaves of a GPU."""
    config = model.config.get_text_config()
    each = tokens * config.hidden_size * (getattr(config, "num_hidden_layers", 1) + AT_WORK) * model.dtype.itemsize
    if model.device.type == "cuda":
        memory = torch.cuda.get_device_properties(model.device).total_memory
        return max(1, min(GPU_ROWS, max(CPU_BYTES, (memory - model.get_memory_footprint()) // 4) // each))
    return max(1, min(CPU_ROWS, CPU_BYTES // each))
