"""Continue many prompts at once, each as it asks: greedily or sampled, with the log-probabilities that it wants.

    texts = [Continuation(wish) for wish in wishes]
    for finished in decode(model, texts, limit=fast_length(…)): ...

Prompts of equal length are read together, without padding; then all rows go on together, one token a step, whatever
their lengths. `decode` stops after each piece of work, for its caller to turn to other questions in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache

from engine.evaluation.batches import DIVERGED, EvaluationError, log_softmax, plan_batches, rows_that_fit
from engine.evaluation.cache import roomy
from engine.evaluation.plain import last_logits, log_probabilities
from engine.evaluation.rows import Rows, merge, select, step
from engine.serving.embedded.drawing import draw

Ids = tuple[int, ...]
MOST_TOGETHER = 512
# Finished rows are dropped once they are this share: dropping copies the whole cache.
DROP_SHARE = 0.25
# A temperature below this is greedy, as in vLLM.
GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class Wish:
    """What one row asks for.

    top: alternatives a token (None: no log-probabilities at all); watched: in their place, the log-probabilities of
    exactly these tokens; prompt_top: the same as `top` for the prompt's own tokens; ends: tokens that end the answer;
    stops(tokens): the text that ends it, or None; answer: tokens whose probability behind the prompt is wanted.
    """

    prompt: Ids
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top: int | None = None
    watched: Ids = ()
    prompt_top: int | None = None
    ends: frozenset[int] = frozenset()
    stops: Callable[[list[int]], str | None] | None = None
    answer: Ids = ()

    @property
    def length(self) -> int:
        """How many tokens it comes to at most."""
        return len(self.prompt) + max(len(self.answer), self.max_tokens)

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn by chance."""
        return self.temperature >= GREEDY_BELOW


@dataclass(slots=True)
class Continuation:
    """What has come of a wish so far. `finish`: `stop`, `length`, or None while it goes on (or was cancelled).

    tokens with the end token, if one came; scores: ln P of each; tops: for each the alternatives by token id, the
    chosen one among them; prompt: for each token of the prompt (but the first) {id: (ln P, rank)}; answer: ln P of the
    answer that was to be scored; chance: where what is drawn comes from.
    """

    wish: Wish
    tokens: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    tops: list[dict[int, float]] = field(default_factory=list)
    prompt: list[dict[int, tuple[float, int]] | None] | None = None
    finish: str | None = None
    stopped_by: str | None = None
    answer: float | None = None
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.wish.seed)


def decode(
    model: Any, texts: Sequence[Continuation], *, limit: int, wanted: Callable[[int], bool] = lambda row: True
) -> Iterator[list[int]]:
    """Continue the texts, piece by piece; yields after each piece the rows (places in `texts`) that ended in it.

    limit: up to how many tokens rows of any lengths may go on together (`fast_length`); longer ones are read whole for
    each token; wanted(row): asked again and again; rows no longer wanted are dropped. Every step must run in
    `torch.inference_mode()`. Raises EvaluationError on logits that are not numbers.
    """
    order = sorted(range(len(texts)), key=lambda row: len(texts[row].wish.prompt))
    longest = max((text.wish.length for text in texts), default=1)
    together = min(MOST_TOGETHER, rows_that_fit(model, longest, 1, many=True))
    short, long = ([r for r in order if (texts[r].wish.length <= limit) == fits] for fits in (True, False))
    for group in _groups(short, texts, limit, together):
        waiting: list[Rows] = []
        for rows in _batches(model, [r for r in group if wanted(r)], texts):
            part, ended = _read(model, rows, texts)
            yield ended
            if len(part.rows):
                waiting.append(part)
        if waiting:
            yield from _go_on(model, merge(waiting), texts, wanted)
    for rows in _batches(model, [r for r in long if wanted(r)], texts):
        yield from _continue_plainly(model, rows, texts, wanted)


def _groups(rows: Sequence[int], texts: Sequence[Continuation], limit: int, most: int) -> Iterator[list[int]]:
    """Rows, the shortest prompts first, cut into groups that may go on together.

    Such rows fill as many columns of the cache as their longest prompt, and their longest answer behind that.
    """
    group: list[int] = []
    behind = 0
    for row in rows:
        wish = texts[row].wish
        more = max(behind, len(wish.answer), wish.max_tokens)
        if len(group) == most or (group and len(wish.prompt) + more > limit):
            yield group
            group, more = [], max(len(wish.answer), wish.max_tokens)
        group.append(row)
        behind = more
    if group:
        yield group


def _continue_plainly(
    model: Any, rows: list[int], texts: Sequence[Continuation], wanted: Callable[[int], bool]
) -> Iterator[list[int]]:
    """Continue prompts of equal length, without a cache."""
    here = [texts[row] for row in rows]
    _score_answers_apart(model, here)
    whole = torch.tensor([text.wish.prompt for text in here], device=model.device)
    if here[0].wish.prompt_top is not None:
        _score_prompts(last_logits(model, whole, whole.shape[1]), whole, here)
    while rows:
        new, going, ended = _choose(last_logits(model, whole, 1)[:, -1], rows, texts)
        yield ended
        going = [place for place in going if wanted(rows[place])]
        whole = torch.cat([whole, new[:, None]], 1)[going]
        rows = [rows[place] for place in going]


def _batches(model: Any, rows: list[int], texts: Sequence[Continuation]) -> Iterator[list[int]]:
    """Rows of equal length, those that want the prompt's log-probabilities apart: these need logits everywhere."""
    for scores in (False, True):
        chosen = [r for r in rows if (texts[r].wish.prompt_top is not None) == scores]
        wide = max((len(texts[r].wish.answer) for r in chosen), default=0)
        prompts, fits = [texts[r].wish.prompt for r in chosen], partial(_rows_at_once, model, scores, wide)
        for batch in plan_batches(prompts, [0] * len(chosen), fits):
            yield [chosen[i] for i in batch.rows]


def _rows_at_once(model: Any, everywhere: bool, wide: int, length: int) -> int:
    return rows_that_fit(model, length + 1 + wide, (length if everywhere else 1) + wide)


def _read(model: Any, rows: list[int], texts: Sequence[Continuation]) -> tuple[Rows, list[int]]:
    """Feed prompts of equal length and choose the first tokens.

    Answers to be scored are fed behind their prompts, and hidden from what follows.
    """
    device = model.device
    here = [texts[row] for row in rows]
    prompts, answers = torch.tensor([text.wish.prompt for text in here], device=device), [t.wish.answer for t in here]
    length, scores = prompts.shape[1], here[0].wish.prompt_top is not None
    width = max(map(len, answers))
    behind = torch.tensor([[*a, *[0] * (width - len(a))] for a in answers], dtype=torch.long, device=device)
    cache = DynamicCache()
    fed = torch.cat([prompts, behind], 1)
    logits = model(fed, past_key_values=cache, use_cache=True, logits_to_keep=0 if scores else width + 1).logits
    if scores:
        _score_prompts(logits[:, :length], prompts, here)
    last = logits[:, -width - 1 :]
    if width:
        each = log_softmax(last[:, :-1]).gather(-1, behind[..., None])[..., 0].double().tolist()
        for text, answer, line in zip(here, answers, each, strict=True):
            text.answer = sum(line[: len(answer)]) if answer else None
    new, going, ended = _choose(last[:, 0], rows, texts)
    state = Rows(
        torch.tensor(rows, device=device),
        roomy(cache),
        torch.full((len(rows),), length, device=device),
        new,
        torch.ones(len(rows), dtype=torch.long, device=device),
        (torch.arange(length + width, device=device) < length).expand(len(rows), -1),
    )
    return select(state, torch.tensor(going, dtype=torch.long, device=device)), ended


def _score_answers_apart(model: Any, texts: Sequence[Continuation]) -> None:
    wanted = [text for text in texts if text.wish.answer]
    scores = log_probabilities(model, [(text.wish.prompt, text.wish.answer) for text in wanted])
    for text, score in zip(wanted, scores, strict=True):
        text.answer = score


def _go_on(model: Any, rows: Rows, texts: Sequence[Continuation], wanted: Callable[[int], bool]) -> Iterator[list[int]]:
    live = list(range(len(rows.rows)))
    while True:
        numbers = rows.rows.tolist()
        live = [place for place in live if wanted(numbers[place])]
        if not live:
            return
        if len(live) <= (1 - DROP_SHARE) * len(numbers):
            rows = select(rows, torch.tensor(live, device=rows.rows.device))
            numbers, live = [numbers[place] for place in live], list(range(len(live)))
        logits = step(model, rows)
        chosen = torch.tensor(live, device=logits.device)
        new, going, ended = _choose(logits[chosen], [numbers[place] for place in live], texts)
        rows.token = rows.token.index_copy(0, chosen, new)
        live = [live[i] for i in going]
        yield ended


def _choose(
    logits: torch.Tensor, rows: list[int], texts: Sequence[Continuation]
) -> tuple[torch.Tensor, list[int], list[int]]:
    """Choose each row's next token from (rows, vocabulary) and note it.

    Returns the tokens, the places of the rows that go on, and the numbers of those that ended.
    """
    likeliest, tokens = logits.max(-1)
    if bool(likeliest.isnan().any()):
        raise EvaluationError(DIVERGED)
    here = [texts[row] for row in rows]
    if drawn := [i for i, text in enumerate(here) if text.wish.samples]:
        wishes, aims = [here[i].wish for i in drawn], [here[i].chance.random() for i in drawn]
        heats, shares = [w.temperature for w in wishes], [w.top_p for w in wishes]
        tokens[drawn] = draw(logits[drawn].float(), heats, shares, aims).to(tokens.dtype)
    going: list[int] = []
    ended: list[int] = []
    marks = _marks(logits, tokens, [text.wish for text in here])
    for place, (row, it, token) in enumerate(zip(rows, here, tokens.tolist(), strict=True)):
        wish = it.wish
        if wish.max_tokens == 0:
            it.finish = "length"
            ended.append(row)
            continue
        it.tokens.append(token)
        if (mark := marks[place]) is not None:
            it.scores.append(mark[token])
            it.tops.append(mark)
        it.stopped_by = wish.stops(it.tokens) if wish.stops else None
        if token in wish.ends or it.stopped_by is not None:
            it.finish = "stop"
        elif len(it.tokens) >= wish.max_tokens:
            it.finish = "length"
        (ended if it.finish else going).append(row if it.finish else place)
    return tokens, going, ended


def _marks(logits: torch.Tensor, tokens: torch.Tensor, wishes: Sequence[Wish]) -> list[dict[int, float] | None]:
    """For each row {token: ln P} of the chosen token and of those it wants to see beside it; None where it wants none.

    logits: (rows, vocabulary), tokens: (rows).
    """
    if all(w.top is None for w in wishes):
        return [None] * len(wishes)
    scored = log_softmax(logits)
    scores = scored.gather(-1, tokens[:, None])[:, 0].tolist()
    most = min(max((w.top or 0 for w in wishes if not w.watched), default=0), scored.shape[1])
    best = scored.topk(most, -1)
    values, others = best.values.tolist(), best.indices.tolist()
    marks: list[dict[int, float] | None] = []
    for place, (wish, token) in enumerate(zip(wishes, tokens.tolist(), strict=True)):
        if wish.top is None:
            marks.append(None)
            continue
        beside = zip(others[place][: wish.top], values[place], strict=False)
        if wish.watched:
            beside = zip(wish.watched, scored[place, list(wish.watched)].tolist(), strict=False)
        marks.append({token: scores[place], **dict(beside)})
    return marks


def _score_prompts(logits: torch.Tensor, prompts: torch.Tensor, texts: Sequence[Continuation]) -> None:
    """Note ln P and rank of each prompt's tokens from logits (rows, length, vocabulary)."""
    scored = log_softmax(logits[:, :-1]) if prompts.shape[1] > 1 else logits[:, :0].float()
    chosen = scored.gather(-1, prompts[:, 1:, None])
    ranks = (1 + (scored > chosen).sum(-1)).tolist()
    values, tokens = chosen[..., 0].tolist(), prompts[:, 1:].tolist()
    most = max(t.wish.prompt_top or 0 for t in texts)
    best = [x.tolist() for x in scored.topk(min(most, scored.shape[-1]), -1)] if most else None
    for row, it in enumerate(texts):
        it.prompt = [None]
        for place, token in enumerate(tokens[row]):
            known = {token: (values[row][place], ranks[row][place])}
            if best and it.wish.prompt_top:
                tops = zip(best[1][row][place][: it.wish.prompt_top], best[0][row][place], strict=False)
                known = {other: (score, rank) for rank, (other, score) in enumerate(tops, 1)} | known
            it.prompt.append(known)
