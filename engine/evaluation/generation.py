"""Answers by real greedy decoding, and the object's probability, from the same pass.

The object is fed behind its prompt at once: that gives the probability of each of its tokens, and, as long as greedy
decoding would have produced the very same tokens, it has been done already. From the first token that differs on,
decoding goes on one token at a time, for many prompts of any length together: what a row of the cache holds beyond its
true past is masked. Nothing is approximate: in float32 the tokens are those of `model.generate(do_sample=False)` (but
for exact ties, and without the penalties that a model's generation settings may ask for).

Decoding ends at an end-of-sequence token or after `max_new_tokens`. Nothing else stops it: no full stop, no line end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from engine.evaluation.batches import Batch, in_halves, log_softmax, plan_batches, rows_that_fit
from engine.evaluation.cache import roomy
from engine.evaluation.parallel import Stopped, compute
from engine.evaluation.plain import Pair, log_probabilities
from engine.evaluation.rows import Rows, merge, select, step

# Rows that decode together: many, so that the few long answers do not keep a small batch busy for dozens of steps.
LEAST_TOGETHER, MOST_TOGETHER = 256, 512
# Finished rows are dropped once they are this share: dropping copies the whole cache.
DROP_SHARE = 0.25


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
    draft: bool = True,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Reply]:
    """Greedy answers and object log-probabilities of (prompt ids, object ids) pairs, in their order.

    groups: questions of one number begin alike (see `plan_batches`); draft=False for a model that does not honour
    masks and positions; on_rows(n) is told of n more finished questions, also of 0 as a sign of life, and may raise to
    stop. Raises EvaluationError on logits that are not numbers.
    """
    replies: list[Reply | None] = [None] * len(questions)
    decoder = _Decoder(model, max_new_tokens, torch.tensor(sorted(ends), device=model.device), draft)
    order = sorted(range(len(questions)), key=lambda i: (len(questions[i][0]), groups[i], len(questions[i][1])))
    longest = max((len(p) + max(len(o), max_new_tokens) for p, o in questions), default=1)
    # At least four parts, so that several threads have something to do; the number of threads itself must not matter.
    size = min(max(LEAST_TOGETHER, -(-len(questions) // 4)), MOST_TOGETHER, rows_that_fit(model, longest, 1, many=True))

    def work(rows: Sequence[int], stop: threading.Event) -> list[Reply]:
        return in_halves(
            lambda part: decoder.reply([questions[r] for r in part], [groups[r] for r in part], stop), rows
        )

    def take(rows: Sequence[int], found: list[Reply]) -> None:
        for row, reply in zip(rows, found, strict=True):
            replies[row] = reply
        on_rows(len(found))

    parts = [order[start : start + size] for start in range(0, len(order), size)]
    compute(work, parts, model.device, on_result=take, on_wait=lambda: on_rows(0))
    return replies  # type: ignore[return-value]


@dataclass(frozen=True)
class _Decoder:
    model: Any
    max_new_tokens: int
    ends: torch.Tensor
    draft: bool

    @torch.inference_mode()
    def reply(self, questions: Sequence[Pair], groups: Sequence[int], stop: threading.Event) -> list[Reply]:
        """Replies to questions of any lengths, all decoded together where the model allows that."""
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
            rows = self._read(questions, batch, answers, scores)
            if self.draft:
                waiting.append(rows)
            else:
                self._go_on(rows, answers, stop)
        if waiting:
            self._go_on(merge(waiting), answers, stop)
        return [Reply(self._cut(tokens), score) for tokens, score in zip(answers, scores, strict=True)]

    def _read(self, questions: Sequence[Pair], batch: Batch, answers: list[list[int]], scores: list[float]) -> Rows:
        """Feed a batch's prompts with their objects; fills in its scores and the answers as far as they are known."""
        device = self.model.device
        pairs = [questions[row] for row in batch.rows]
        prompts = torch.tensor([list(p) for p, _ in pairs])
        drafts = [list(o) if self.draft else [] for _, o in pairs]
        lengths = torch.tensor([len(o) for o in drafts], device=device)
        width = int(lengths.max())
        objects = torch.tensor([o + [0] * (width - len(o)) for o in drafts], dtype=torch.long)
        inside = torch.arange(width, device=device) < lengths[:, None]

        cache, shared = self._read_beginning(prompts, batch.shared)
        fed = torch.cat([prompts[:, shared:], objects], 1).to(device)
        found = log_softmax(self.model(fed, past_key_values=cache, use_cache=True, logits_to_keep=width + 1).logits)
        chosen = found[:, :width].gather(-1, objects.to(device)[..., None])[..., 0]
        known = (chosen.double() * inside).sum(1).tolist() if self.draft else log_probabilities(self.model, pairs)
        # Greedy decoding would have chosen these itself; comparing with the maximum is cheaper than finding its place.
        agreed = ((chosen == found[:, :width].amax(-1)) & inside).long().cumprod(1).sum(1)
        token = found[torch.arange(len(pairs), device=device), agreed].argmax(-1)
        for row, score, tokens, same, new in zip(
            batch.rows.tolist(), known, drafts, agreed.tolist(), token.tolist(), strict=True
        ):
            scores[row] = score
            answers[row] = [*tokens[:same], new]
        past = prompts.shape[1] + agreed
        mask = torch.arange(prompts.shape[1] + width, device=device) < past[:, None]
        rows = Rows(torch.tensor(batch.rows, device=device), roomy(cache), past, token, agreed + 1, mask)
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

    def _go_on(self, rows: Rows, answers: list[list[int]], stop: threading.Event) -> None:
        """Decode one token at a time, and put each at the end of its answer, until every row has ended."""
        while True:
            going = self._going(rows)
            count = int(going.sum())
            if not count:
                return
            if stop.is_set():
                raise Stopped
            if count <= (1 - DROP_SHARE) * len(going):
                rows, going = select(rows, going.nonzero()[:, 0]), going[going]
            logits = step(self.model, rows, masked=self.draft)
            # A finished row that is not dropped yet repeats its last token, which ends it again.
            rows.token = torch.where(going, logits.argmax(-1), rows.token)
            rows.made = rows.made + 1
            for row, new in zip(rows.rows[going].tolist(), rows.token[going].tolist(), strict=True):
                answers[row].append(new)

    def _cut(self, tokens: list[int]) -> tuple[int, ...]:
        ends = self.ends.tolist()
        tokens = tokens[: self.max_new_tokens]
        return tuple(tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))])
