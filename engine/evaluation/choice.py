"""Multiple choice: which option the model finds most probable, and where the truth ranks.

The paper's measure: arg max over the options of the product of the option's token probabilities, without length
normalisation; a tie goes against the truth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from engine.evaluation.answer import ROUNDING, rank_of
from engine.evaluation.batches import EvaluationError, in_halves, rows_that_fit
from engine.evaluation.parallel import Stopped, compute
from engine.evaluation.plain import Pair, context, known_length, log_probabilities
from engine.evaluation.questions import Question
from engine.evaluation.tree import Ids, Tree, build_trees, score_tree
from engine.models.limits import ENDLESS
from engine.models.tokenise import tokenise_questions

# Measured: on a CPU batches of about this many tokens are fastest; larger ones outgrow the processor's cache.
CPU_TOKENS = 768
# Of one tree: who sees whom is noted for each pair of its nodes.
MOST_NODES = 4096


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of one question.

    `rank` of the object among `options` answers: 1 is best, a tie goes against it. `log_probability`: the natural
    logarithm of its probability normalised over the options.
    """

    rank: int
    options: int
    log_probability: float


@dataclass(frozen=True)
class OptionBatch:
    """Questions (rows) whose prompts are equally long, with trees of their options; or one question's pairs."""

    rows: tuple[int, ...]
    prompts: tuple[Ids, ...] = ()
    trees: tuple[Tree, ...] = ()
    pairs: tuple[Pair, ...] = ()


def judge(scores: np.ndarray, truth: int, rounding: float = ROUNDING) -> Choice:
    """The outcome from ln P of every option (options) and the index of the true one; `rounding` as in `rank_of`."""
    rank = rank_of(scores.tolist(), truth, rounding)
    return Choice(rank, len(scores), float(scores[truth] - np.logaddexp.reduce(scores)))


def answer_choices(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    encoded: Sequence[Pair],
    *,
    limit: int = ENDLESS,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Choice]:
    """The outcome of every question, in their order; each needs `options` that contain its object.

    encoded: (prompt ids, object ids) of each question; the rest as for `score_options`.
    """
    scores = score_options(model, list(encode_options(tokenizer, questions, encoded)), limit=limit, on_rows=on_rows)
    # Where an option stands in a tree moves what is computed in fewer digits by a part of the last one.
    rounding = max(ROUNDING, torch.finfo(model.dtype).eps / 4)
    return [judge(line, q.options.index(q.object), rounding) for line, q in zip(scores, questions, strict=True)]


def score_options(
    model: Any,
    questions: Sequence[Sequence[Pair]],
    *,
    limit: int = ENDLESS,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[np.ndarray]:
    """ln P(option | prompt) of every option of every question, each an array of float64 (options).

    questions: (prompt ids, option ids) of each option; limit: up to how many tokens trees are the model's own way
    (`fast_length`), what is longer is scored as a sequence of its own; on_rows(n) is told of n more finished questions,
    also of 0 as a sign of life, and may raise to stop. Raises EvaluationError on logits that are not numbers, and for
    an option that the model cannot read behind its prompt.
    """
    scores: list[np.ndarray | None] = [None] * len(questions)
    if max((len(p) + len(o) for pairs in questions for p, o in pairs), default=0) > (most := context(model)):
        raise EvaluationError(f"A prompt with one of its options has more than the {most} tokens the model can read.")

    def work(batch: OptionBatch, stop: threading.Event) -> list[np.ndarray]:
        if stop.is_set():
            raise Stopped
        return score_batch(model, batch)

    def take(batch: OptionBatch, found: list[np.ndarray]) -> None:
        for row, line in zip(batch.rows, found, strict=True):
            scores[row] = line
        on_rows(len(batch.rows))

    batches = list(option_batches(model, questions, min(limit, known_length(model))))
    compute(work, batches, model.device, on_result=take, on_wait=lambda: on_rows(0))
    return scores  # type: ignore[return-value]


def score_batch(model: Any, batch: OptionBatch) -> list[np.ndarray]:
    """ln P of every option of each question of a batch: arrays of float64 (options)."""
    if not batch.trees:
        return [np.array(in_halves(lambda part: log_probabilities(model, part), batch.pairs))]

    def score(part: Sequence[Ids]) -> list[np.ndarray]:
        return list(np.concatenate([score_tree(model, part, tree) for tree in batch.trees], 1))

    return in_halves(score, batch.prompts)


def option_batches(model: Any, questions: Sequence[Sequence[Pair]], limit: int) -> Iterator[OptionBatch]:
    """Cut questions, as `score_options` takes them, into what is computed at once. Depends on nothing but these."""
    together: dict[tuple[Ids, ...], dict[int, list[tuple[int, Ids]]]] = {}
    for row, pairs in enumerate(questions):
        prompt = pairs[0][0]
        longest = len(prompt) + max(len(o) for _, o in pairs)
        if longest <= limit and all(p == prompt for p, _ in pairs):
            options = tuple(tuple(o) for _, o in pairs)
            together.setdefault(options, {}).setdefault(len(prompt), []).append((row, tuple(prompt)))
        else:
            yield OptionBatch((row,), pairs=tuple(pairs))
    for options, by_length in together.items():
        for length, asked in sorted(by_length.items()):
            most = max(MOST_NODES, *map(len, options))
            trees = build_trees(options, min(limit - length, most))
            nodes = max(len(tree.tokens) for tree in trees)
            size = rows_that_fit(model, length + nodes, nodes + 1)
            if model.device.type == "cpu":
                size = max(1, min(size, CPU_TOKENS // (length + nodes)))
            for start in range(0, len(asked), size):
                rows, prompts = zip(*asked[start : start + size], strict=True)
                yield OptionBatch(rows, prompts, trees)


def encode_options(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], encoded: Sequence[Pair]
) -> Iterator[list[Pair]]:
    """For each question the (prompt ids, option ids) of each of its options, as in the text `prompt + " " + option`.

    How an option is split into tokens can depend on the end of the prompt. It is worked out once for each last word,
    and used again only where it agrees with the question's own object.
    """
    known: dict[tuple[tuple[str, ...], str], list[Ids]] = {}
    for question, (prompt, object_ids) in zip(questions, encoded, strict=True):
        key = (question.options, question.text.rsplit(" ", 1)[-1])
        options = known.get(key)
        if options is not None and options[question.options.index(question.object)] == tuple(object_ids):
            yield [(prompt, option) for option in options]
            continue
        pairs = tokenise_questions(tokenizer, [(question.text, option) for option in question.options])
        if all(p == prompt for p, _ in pairs):
            known[key] = [tuple(o) for _, o in pairs]
        yield list(pairs)
