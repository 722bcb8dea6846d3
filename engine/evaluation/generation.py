"""Answers by real greedy decoding, and the object's probability, from the same pass.

The object is fed behind its prompt at once: that gives the probability of each of its tokens, and, as long as greedy
decoding would have produced the very same tokens, it has been done already. From the first token that differs on,
decoding goes on one token at a time; what the cache still holds of the object is masked. Nothing is approximate:
in float32 the tokens are those of `model.generate(do_sample=False)` (but for exact ties, and without the penalties
that a model's generation settings may ask for).

Decoding ends at an end-of-sequence token or after `max_new_tokens`. Nothing else stops it: no full stop, no line end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from engine.evaluation.batches import Batch, in_halves, log_normaliser, plan_batches, rows_that_fit
from engine.evaluation.parallel import Stopped, compute
from engine.evaluation.plain import Pair, log_probabilities

# Finished rows are dropped once they are this share of a batch: dropping copies the whole cache.
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
    longest = max((len(o) for _, o in questions), default=0)
    # Objects of like length side by side: less padding behind them.
    order = sorted(range(len(questions)), key=lambda i: len(questions[i][1]))
    decoder = _Decoder(model, max_new_tokens, torch.tensor(sorted(ends), device=model.device), draft)

    def rows_of(length: int) -> int:
        return rows_that_fit(model, length + max(longest, max_new_tokens), longest + 1)

    def work(batch: Batch, stop: threading.Event) -> list[Reply]:
        pairs = [questions[order[row]] for row in batch.rows]
        return in_halves(lambda part: decoder.reply(part, batch.shared, stop), pairs)

    def take(batch: Batch, found: list[Reply]) -> None:
        for row, reply in zip(batch.rows, found, strict=True):
            replies[order[row]] = reply
        on_rows(len(found))

    batches = plan_batches([questions[i][0] for i in order], [groups[i] for i in order], rows_of)
    compute(work, batches, model.device, on_result=take, on_wait=lambda: on_rows(0))
    return replies  # type: ignore[return-value]


@dataclass(frozen=True)
class _Decoder:
    model: Any
    max_new_tokens: int
    ends: torch.Tensor
    draft: bool

    @torch.inference_mode()
    def reply(self, questions: Sequence[Pair], shared: int, stop: threading.Event) -> list[Reply]:
        """Replies to questions of equal prompt length whose first `shared` tokens are often the same."""
        device = self.model.device
        prompts = torch.tensor([list(p) for p, _ in questions])
        drafts = [list(o) if self.draft else [] for _, o in questions]
        lengths = torch.tensor([len(o) for o in drafts], device=device)
        width = int(lengths.max())
        objects = torch.tensor([o + [0] * (width - len(o)) for o in drafts], dtype=torch.long)
        inside = torch.arange(width, device=device) < lengths[:, None]

        cache, shared = self._read_beginning(prompts, shared)
        fed = torch.cat([prompts[:, shared:], objects], 1).to(device)
        logits = self.model(fed, past_key_values=cache, use_cache=True, logits_to_keep=width + 1).logits.float()
        totals = log_normaliser(logits)
        objects = objects.to(device)
        if self.draft:
            chosen = logits[:, :width].gather(-1, objects[..., None])[..., 0] - totals[:, :width]
            scores = (chosen.double() * inside).sum(1).tolist()
        else:
            scores = log_probabilities(self.model, questions)
        greedy = logits.argmax(-1)
        del logits
        agreed = ((greedy[:, :width] == objects) & inside).long().cumprod(1).sum(1)
        following = greedy.gather(1, agreed[:, None])
        tails = self._go_on(cache, following, prompts.shape[1], agreed, width, stop)
        return [
            Reply(self._cut([*draft[:same], *tail]), score)
            for draft, same, tail, score in zip(drafts, agreed.tolist(), tails, scores, strict=True)
        ]

    def _cut(self, tokens: list[int]) -> tuple[int, ...]:
        ends = self.ends.tolist()
        tokens = tokens[: self.max_new_tokens]
        return tuple(tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))])

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

    def _go_on(
        self,
        cache: DynamicCache,
        token: torch.Tensor,
        length: int,
        agreed: torch.Tensor,
        width: int,
        stop: threading.Event,
    ) -> list[list[int]]:
        """Decode one token at a time: the tokens of each row from `token` (rows, 1) on, up to and with an end token.

        The cache holds `length + width` tokens a row, of which the first `length + agreed` are the row's true past.
        """
        tails = [[first] for first in token[:, 0].tolist()]
        device, dtype = self.model.device, self.model.dtype
        rows = torch.arange(len(tails), device=device)
        made = agreed + 1
        positions = (length + agreed)[:, None]
        seen = torch.arange(length + width, device=device) < positions
        mask = torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[:, None, None]
        while True:
            going = ~torch.isin(token[:, 0], self.ends) & (made < self.max_new_tokens)
            count = int(going.sum())
            if not count:
                return tails
            if stop.is_set():
                raise Stopped
            if count <= (1 - DROP_SHARE) * len(going):
                keep = going.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                rows, mask, positions, token, made, going = (
                    x[keep] for x in (rows, mask, positions, token, made, going)
                )
            mask = torch.cat([mask, mask.new_zeros(len(rows), 1, 1, 1)], -1)
            where = {"attention_mask": mask, "position_ids": positions} if self.draft else {}
            answer = self.model(token, past_key_values=cache, use_cache=True, logits_to_keep=1, **where)
            # A finished row that is still in the batch repeats its last token, which ends it again.
            token = torch.where(going[:, None], answer.logits[:, -1].argmax(-1, keepdim=True), token)
            positions, made = positions + 1, made + 1
            for row, new in zip(rows[going].tolist(), token[going, 0].tolist(), strict=True):
                tails[row].append(new)
