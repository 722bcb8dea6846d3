"""Answers by real greedy decoding, and the object's probability, from the same pass.

The object is fed behind its prompt at once: that gives the probability of each of its tokens, and, as long as greedy
decoding would have produced the very same tokens, it has been done already. From the first token that differs on,
decoding goes on one token at a time, for many prompts of any length together: what a row of the cache holds beyond its
true past is masked. Nothing is approximate: in float32 the tokens are those of `model.generate(do_sample=False)`,
without the penalties that a model's generation settings may ask for; of tokens that tie, one that does not lead to the
object. Where that way might differ from the model's own, `generate` itself decodes.

Decoding ends at an end-of-sequence token, after `max_new_tokens`, or where the model's context ends, and, if the caller
wants it so, once enough has been said. Nothing else stops it: no full stop, no line end.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from engine.evaluation.batches import (
    LARGE_VOCABULARY,
    Batch,
    EvaluationError,
    in_halves,
    log_probability_of,
    log_softmax,
    plan_batches,
    rows_that_fit,
)
from engine.evaluation.cache import roomy
from engine.evaluation.captured import FixedSteps
from engine.evaluation.parallel import Stopped, compute
from engine.evaluation.plain import Pair, context, generate, known_length, log_probabilities
from engine.evaluation.rows import Rows, Steps, merge, select
from engine.evaluation.ties import likeliest, tied
from engine.models.limits import ENDLESS

# Rows that decode together: many, so that the few long answers do not keep a small batch busy for dozens of steps.
LEAST_TOGETHER, MOST_TOGETHER = 256, 512
# Finished rows are dropped once they are this share: dropping copies the whole cache.
DROP_SHARE = 0.25
DROP_SHARE_FIXED = 0.5  # where steps have one shape, which has to be recorded anew

# Which answers have said enough, by the objects' tokens and by those answered so far.
Enough = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[bool]]
# Questions (rows) that are computed at once, and how.
Part = tuple[list[int], Callable[[Sequence[Pair], Sequence[int], threading.Event], list["Reply"]]]


@dataclass(frozen=True, slots=True)
class Reply:
    """`tokens`: what greedy decoding gave, without the end-of-sequence token.

    `log_probability`: natural logarithm of the product of the object's token probabilities given the prompt.
    """

    tokens: tuple[int, ...]
    log_probability: float


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end an answer: those of the model's generation settings, its configuration and the tokenizer."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found |= set(ids if isinstance(ids, list | tuple) else [ids]) - {None}
    return tuple(sorted(found))


def reply_to(
    model: Any,
    questions: Sequence[Pair],
    groups: Sequence[int],
    *,
    max_new_tokens: int,
    ends: Iterable[int],
    limit: int = ENDLESS,
    enough: Enough | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Reply]:
    """Greedy answers and object log-probabilities of (prompt ids, object ids) pairs, in their order.

    groups: questions of one number begin alike (see `plan_batches`); limit: up to how many tokens the model is the
    same in this fast way (`fast_length`); enough: which answers need not go on, so that they may end anywhere from
    there on; on_rows(n) is told of n more finished questions, also of 0 as a sign of life, and may raise to stop.
    Raises EvaluationError on logits that are not numbers, and for a question that the model cannot read with its
    object.
    """
    replies: list[Reply | None] = [None] * len(questions)
    decoder = _Decoder(model, max_new_tokens, torch.tensor(sorted(ends), device=model.device), enough)
    order = sorted(range(len(questions)), key=lambda i: (len(questions[i][0]), groups[i], len(questions[i][1])))
    longest = max((len(p) + max(len(o), max_new_tokens) for p, o in questions), default=1)
    if max((len(p) + len(o) for p, o in questions), default=0) > (most := context(model)):
        raise EvaluationError(f"A prompt with its object has more than the {most} tokens the model can read.")
    size = _together(model, len(questions), longest)
    # Rows that decode together fill as many columns of the cache as the longest of them, and its answer behind that.
    behind = max((len(o) for _, o in questions), default=0) + max_new_tokens
    limit = min(limit, known_length(model))
    fast = [row for row in order if len(questions[row][0]) + behind <= limit]

    def work(part: Part, stop: threading.Event) -> list[Reply]:
        rows, way = part
        return in_halves(lambda some: way([questions[r] for r in some], [groups[r] for r in some], stop), rows)

    def take(part: Part, found: list[Reply]) -> None:
        for row, reply in zip(part[0], found, strict=True):
            replies[row] = reply
        on_rows(len(found))

    parts: list[Part] = [(fast[start : start + size], decoder.reply) for start in range(0, len(fast), size)]
    for _, alike in itertools.groupby(order[len(fast) :], lambda row: len(questions[row][0])):
        rows = list(alike)
        parts += [(rows[start : start + size], decoder.reply_plainly) for start in range(0, len(rows), size)]
    compute(work, parts, model.device, on_result=take, on_wait=lambda: on_rows(0))
    return replies  # type: ignore[return-value]


def _together(model: Any, count: int, longest: int) -> int:
    """How many of `count` rows of up to `longest` tokens decode together."""
    fit = rows_that_fit(model, longest, 1, many=True)
    if model.device.type != "cpu":
        # A step takes an accelerator hardly longer for thousands of rows than for a few: as few steps as can be, in
        # parts of one size.
        return max(1, -(-count // max(1, -(-count // fit))))
    # At least four parts, so that several threads have something to do; the number of threads itself must not matter.
    size = min(max(LEAST_TOGETHER, -(-count // 4)), MOST_TOGETHER, fit)
    if size < LEAST_TOGETHER and count > 1:
        # Few fit: as many parts for each of two cores, none much smaller than the others.
        size = -(-count // (2 * -(-count // (2 * size))))
    return size


@dataclass(frozen=True)
class _Decoder:
    model: Any
    max_new_tokens: int
    ends: torch.Tensor
    enough: Enough | None = None

    def reply_plainly(self, questions: Sequence[Pair], groups: Sequence[int], stop: threading.Event) -> list[Reply]:
        """Replies to questions whose prompts are equally long, by `generate` and by whole sequences."""
        ends = self.ends.tolist()
        answers = generate(self.model, questions, max_new_tokens=self.max_new_tokens, ends=ends, stop=stop)
        scores = log_probabilities(self.model, questions)
        return [Reply(tuple(tokens), score) for tokens, score in zip(answers, scores, strict=True)]

    @torch.inference_mode()
    def reply(self, questions: Sequence[Pair], groups: Sequence[int], stop: threading.Event) -> list[Reply]:
        """Replies to questions of any lengths, all decoded together."""
        answers: list[list[int]] = [[] for _ in questions]
        scores = [0.0] * len(questions)
        widest = 1 + max(len(o) for _, o in questions)
        batches = plan_batches(
            [p for p, _ in questions], groups, lambda n: rows_that_fit(self.model, n + widest, widest)
        )
        waiting = []
        for batch in batches:
            if stop.is_set():
                raise Stopped
            waiting.append(self._read(questions, batch, answers, scores))
        self._go_on(merge(waiting), questions, answers, stop)
        return [Reply(self._cut(tokens), score) for tokens, score in zip(answers, scores, strict=True)]

    def _read(self, questions: Sequence[Pair], batch: Batch, answers: list[list[int]], scores: list[float]) -> Rows:
        """Feed a batch's prompts with their objects; fills in its scores and the answers as far as they are known."""
        device = self.model.device
        pairs = [questions[row] for row in batch.rows]
        prompts = torch.tensor([list(p) for p, _ in pairs])
        drafts = [list(o) for _, o in pairs]
        lengths = torch.tensor([len(o) for o in drafts], device=device)
        width = int(lengths.max())
        objects = torch.tensor([o + [0] * (width - len(o)) for o in drafts], dtype=torch.long)
        inside = torch.arange(width, device=device) < lengths[:, None]

        cache, shared = self._read_beginning(prompts, batch.shared)
        fed = torch.cat([prompts[:, shared:], objects], 1).to(device)
        logits = self.model(fed, past_key_values=cache, use_cache=True, logits_to_keep=width + 1).logits
        drafted, objects = logits[:, :width], objects.to(device)
        if logits.shape[-1] < LARGE_VOCABULARY:
            found = log_softmax(logits)[:, :width]
            chosen = found.gather(-1, objects[..., None])[..., 0]
            same = chosen == found.amax(-1)
        else:
            chosen = log_probability_of(drafted, objects)
            same = drafted.gather(-1, objects[..., None])[..., 0] == drafted.amax(-1)
        known = (chosen.double() * inside).sum(1).tolist()
        # Greedy decoding would have chosen these itself; comparing with the maximum is cheaper than finding its place.
        same &= inside
        same[same.clone()] = tied(drafted[same]).sum(-1) == 1
        agreed = same.long().cumprod(1).sum(1)
        given = [tokens[:count] for tokens, count in zip(drafts, agreed.tolist(), strict=True)]
        token = likeliest(logits[torch.arange(len(pairs), device=device), agreed], drafts, given)
        for row, score, tokens, new in zip(batch.rows.tolist(), known, given, token.tolist(), strict=True):
            scores[row] = score
            answers[row] = [*tokens, new]
        past = prompts.shape[1] + agreed
        mask = torch.arange(prompts.shape[1] + width, device=device) < past[:, None]
        rows = Rows(torch.tensor(batch.rows, device=device), roomy(cache), past, token, agreed + 1, mask)
        self._end_what_said_enough(rows, questions, answers)
        return select(rows, self._going(rows).nonzero()[:, 0])

    def _read_beginning(self, prompts: torch.Tensor, shared: int) -> tuple[DynamicCache, int]:
        """A cache of the first `shared` tokens of each row, every different beginning computed once.

        Returns how many tokens it holds: none where too few rows begin alike.
        """
        # Without a configuration every layer keeps all of its past; the model's own masks see to sliding windows.
        cache = DynamicCache()
        if shared:
            beginnings, place = prompts[:, :shared].unique(dim=0, return_inverse=True)
            if 2 * len(beginnings) <= len(prompts):
                device = self.model.device
                self.model(beginnings.to(device), past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache.batch_select_indices(place.to(device))
                return cache, shared
        return cache, 0

    def _going(self, rows: Rows) -> torch.Tensor:
        return ~torch.isin(rows.token, self.ends) & (rows.made < self.max_new_tokens)

    def _go_on(self, rows: Rows, questions: Sequence[Pair], answers: list[list[int]], stop: threading.Event) -> None:
        """Decode one token at a time, and put each at the end of its answer, until every row has ended."""
        steps: Steps | FixedSteps = self._steps(rows)
        while True:
            rows = steps.rows
            going = self._going(rows)
            count = int(going.sum())
            if not count:
                return
            if stop.is_set():
                raise Stopped
            if count <= (1 - self._drop_share) * len(going):
                rows, going = select(rows, going.nonzero()[:, 0]), going[going]
                steps = self._steps(rows)
                rows = steps.rows
            logits, numbers = steps.next(), rows.rows.tolist()
            chosen = likeliest(logits, [questions[n][1] for n in numbers], [answers[n] for n in numbers])
            # A finished row that is not dropped yet repeats its last token, which ends it again.
            steps.feed(torch.where(going, chosen, rows.token))
            rows.made = rows.made + 1
            for row, new in zip(rows.rows[going].tolist(), rows.token[going].tolist(), strict=True):
                answers[row].append(new)
            self._end_what_said_enough(rows, questions, answers)

    @property
    def _fixed(self) -> bool:
        """Whether steps have one shape, so that they can be recorded: for an accelerator they are too short."""
        return self.model.device.type == "cuda"

    @property
    def _drop_share(self) -> float:
        return DROP_SHARE_FIXED if self._fixed else DROP_SHARE

    def _steps(self, rows: Rows) -> Steps | FixedSteps:
        if not self._fixed:
            return Steps(self.model, rows)
        least = rows.made[self._going(rows)]
        return FixedSteps(self.model, rows, self.max_new_tokens - int(least.min()) if len(least) else 0)

    def _end_what_said_enough(self, rows: Rows, questions: Sequence[Pair], answers: list[list[int]]) -> None:
        """Count these answers as long as they may be."""
        if self.enough and len(numbers := rows.rows.tolist()):
            said = self.enough([questions[n][1] for n in numbers], [answers[n] for n in numbers])
            rows.made = rows.made.masked_fill(torch.tensor(said, device=rows.made.device), self.max_new_tokens)

    def _cut(self, tokens: list[int]) -> tuple[int, ...]:
        ends = self.ends.tolist()
        tokens = tokens[: self.max_new_tokens]
        return tuple(tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))])
