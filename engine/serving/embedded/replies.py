"""From a request of the protocol to what is computed, and from what was found to the reply.

Runs on the embedded server; how much one request may ask for is in `limits.py`.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from engine.checks import shorten
from engine.evaluation.choice import option_batches, score_batch
from engine.models.tokenise import encode, tokenise_prompts
from engine.serving.embedded.decoding import Continuation, Wish
from engine.serving.embedded.limits import (
    BadRequest,
    check_completion,
    check_options,
    check_reply,
    check_scoring,
    completion_bytes,
    most_lengths,
    options_bytes,
    prompts_of,
)
from engine.serving.embedded.residents import Resident, free_memory
from engine.serving.embedded.scheduling import Alone, Completion
from engine.serving.protocol import (
    TOKEN_ID,
    Choice,
    CompletionRequest,
    CompletionResponse,
    LogProbs,
    OptionsRequest,
    OptionsResponse,
    PromptLogProb,
    Usage,
)

# The logarithm that stands for "never" in JSON, which has no infinity; vLLM's own.
LEAST = -9999.0


class CompletionJob(Completion):
    """A `CompletionRequest`; its future's result becomes a reply by `finish`. Raises BadRequest."""

    def __init__(self, request: CompletionRequest, model: str) -> None:
        super().__init__(model)
        self.request = request
        self.prompts = prompts_of(request)
        self.rows = len(self.prompts) * (request.n or 1)
        check_completion(request, len(self.prompts))
        # As far as can be told before the prompts are tokens.
        self.size = completion_bytes(request, most_lengths(self.prompts))

    def wishes(self, resident: Resident) -> list[Wish]:
        """One wish for each choice: `n` of each prompt, one after the other.

        Raises BadRequest for ids that the model does not have, prompts that are empty or longer than it reads, and
        replies that would be too large.
        """
        request = self.request
        top, prompt_top = request.logprobs, request.prompt_logprobs
        if prompt_top is None and request.echo:
            prompt_top = top
        watched = tuple(request.logprob_token_ids or ())
        _check_ids(watched, resident, "logprob_token_ids", "one of logprob_token_ids")
        answers = [tuple(answer) for answer in request.score_answers or [[]] * len(self.prompts)]
        wishes: list[Wish] = []
        prompts = self._ids(resident)
        if prompt_top is not None:
            check_scoring(max(map(len, prompts)), resident.vocabulary, free_memory())
        check_reply(completion_bytes(request, map(len, prompts), resident.context), "prompt")
        for number, prompt in enumerate(prompts, 1):
            room = resident.context - len(prompt)
            asked = request.max_tokens if request.max_tokens is not None else 16
            _check_ids(answers[number - 1], resident, "score_answers", f"answer {number}")
            if room < max(1 if asked else 0, len(answers[number - 1])):
                raise BadRequest(
                    f"prompt {number} has {len(prompt):,} tokens, and the model reads at most {resident.context:,} "
                    "with its answer: shorten it",
                    "prompt",
                )
            wish = Wish(
                prompt=prompt, max_tokens=min(asked, room), top=top, watched=watched, prompt_top=prompt_top,
                temperature=1.0 if request.temperature is None else request.temperature,
                top_p=1.0 if request.top_p is None else request.top_p,
                ends=frozenset() if request.ignore_eos else resident.ends,
                stops=self._stops(resident, prompt), answer=answers[number - 1],
            )  # fmt: skip
            seeds = (None if request.seed is None else request.seed + copy for copy in range(request.n or 1))
            wishes += [replace(wish, seed=seed) for seed in seeds]
        return wishes

    def finish(self, resident: Resident, texts: list[Continuation]) -> CompletionResponse:
        """The reply."""
        choices = [self._choice(resident, index, text) for index, text in enumerate(texts)]
        # Copies of one prompt were read once for each.
        read, written = sum(len(t.wish.prompt) for t in texts), sum(len(t.tokens) for t in texts)
        return CompletionResponse(
            id=f"cmpl-{secrets.token_hex(12)}",
            model=self.request.model or resident.name,
            choices=choices,
            usage=Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written),
        )

    def _ids(self, resident: Resident) -> list[tuple[int, ...]]:
        """The prompts' token ids; texts are tokenised as training and evaluation do, unless the request says how."""
        # A text far beyond the context need not be read to the end to be refused.
        texts = [prompt[: 100 * resident.context] for prompt in self.prompts if isinstance(prompt, str)]
        if self.request.add_special_tokens is False:
            encoded = [ids for ids, _ in encode(resident.tokenizer, texts)]
        elif self.request.add_special_tokens:
            encoded = [resident.tokenizer.encode(text, add_special_tokens=True) for text in texts]
        else:
            encoded = tokenise_prompts(resident.tokenizer, texts)
        tokens = iter(encoded)
        found = [tuple(next(tokens) if isinstance(prompt, str) else prompt) for prompt in self.prompts]
        for number, ids in enumerate(found, 1):
            if not ids:
                raise BadRequest(f"prompt {number} is empty: give at least one token", "prompt")
            _check_ids(ids, resident, "prompt", f"prompt {number}")
        return found

    def _stops(self, resident: Resident, prompt: tuple[int, ...]) -> Callable[[list[int]], str | None] | None:
        stop = self.request.stop
        texts = [t for t in ([stop] if isinstance(stop, str) else stop or []) if t]
        if not texts:
            return None

        def stops(tokens: list[int]) -> str | None:
            answer = self._text(resident, prompt, tokens)
            return next((t for t in texts if t in answer), None)

        return stops

    def _text(self, resident: Resident, prompt: tuple[int, ...], tokens: list[int]) -> str:
        """The answer as it reads behind its prompt, with the space that it begins with."""
        special = self.request.skip_special_tokens
        before = _decode(resident, prompt[-8:], special)
        whole = _decode(resident, (*prompt[-8:], *tokens), special)
        return whole[len(before) :] if whole.startswith(before) else _decode(resident, tuple(tokens), special)

    def _choice(self, resident: Resident, index: int, it: Continuation) -> Choice:
        request, wish = self.request, it.wish
        ended = it.tokens[-1:] and it.tokens[-1] in wish.ends
        text = self._text(resident, wish.prompt, it.tokens[:-1] if ended else it.tokens)
        if it.stopped_by is not None:
            text = text.partition(it.stopped_by)[0]
        tokens = it.tokens
        scores: list[float | None] = [*it.scores]
        tops: list[dict[int, float] | None] = [*it.tops]
        if request.echo:
            asked = self.prompts[index // (request.n or 1)]
            # A text comes back as it was sent; what a tokenizer makes of it may read otherwise.
            before = asked if isinstance(asked, str) else _decode(resident, wish.prompt, request.skip_special_tokens)
            text = before + text
            tokens = [*wish.prompt, *tokens]
            if wish.top is not None:
                prompt = it.prompt or [None]
                scores = [p[t][0] if p else None for p, t in zip(prompt, wish.prompt, strict=True)] + scores
                tops = [{t: s for t, (s, _) in p.items()} if p else None for p in prompt] + tops
        return Choice(
            index=index,
            text=text,
            finish_reason=it.finish,
            stop_reason=it.stopped_by,
            logprobs=self._logprobs(resident, tokens, scores, tops) if wish.top is not None else None,
            prompt_logprobs=_prompt_logprobs(resident, it.prompt) if request.prompt_logprobs is not None else None,
            token_ids=it.tokens if request.return_token_ids else None,
            prompt_token_ids=list(wish.prompt) if request.return_token_ids else None,
            answer_logprob=None if it.answer is None else max(it.answer, LEAST),
        )

    def _logprobs(self, resident: Resident, tokens: list[int], scores: list[Any], tops: list[Any]) -> LogProbs:
        if self.request.return_tokens_as_token_ids:
            name: Callable[[int], str] = lambda token: f"{TOKEN_ID}{token}"  # noqa: E731
        else:
            known = {t: _decode(resident, (t,), False) for t in {*tokens, *itertools.chain(*(x or () for x in tops))}}
            name = known.__getitem__
        shown = [name(t) for t in tokens]
        return LogProbs(
            tokens=shown,
            token_logprobs=[None if s is None else max(s, LEAST) for s in scores],
            top_logprobs=[None if x is None else {name(t): max(s, LEAST) for t, s in x.items()} for x in tops],
            text_offset=[0, *itertools.accumulate(len(t) for t in shown[:-1])] if shown else [],
        )


class OptionsJob(Alone):
    """An `OptionsRequest`; the future's result is the reply. Raises BadRequest."""

    def __init__(self, request: OptionsRequest) -> None:
        super().__init__(request.model)
        self.request = request
        check_options(request)
        self.size = options_bytes(request)

    def work(self, resident: Resident) -> Iterator[None]:
        """Score the options, batch by batch. Raises BadRequest as `CompletionJob.wishes` does."""
        sets = [[tuple(option) for option in options] for options in self.request.option_sets]
        for option in itertools.chain(*sets):
            _check_ids(option, resident, "option_sets", "an option")
        longest = [max(map(len, options)) for options in sets]
        for number, question in enumerate(self.request.questions, 1):
            if not question.prompt:
                raise BadRequest(f"prompt {number} is empty: give at least one token", "questions")
            _check_ids(tuple(question.prompt), resident, "questions", f"prompt {number}")
            if len(question.prompt) + longest[question.options] > resident.context:
                raise BadRequest(
                    f"prompt {number} with its longest option is longer than the {resident.context:,} tokens the "
                    "model reads: shorten it",
                    "questions",
                )
        asked = [[(tuple(q.prompt), option) for option in sets[q.options]] for q in self.request.questions]
        scores: list[list[float]] = [[] for _ in asked]
        for batch in option_batches(resident.model, asked, resident.limit):
            if self.cancelled:
                return
            for row, line in zip(batch.rows, score_batch(resident.model, batch), strict=True):
                scores[row] = [max(s, LEAST) for s in line.tolist()]
            yield
        self.future.set_result(OptionsResponse(model=self.request.model, log_probabilities=scores))


def _check_ids(ids: tuple[int, ...], resident: Resident, param: str, what: str) -> None:
    if ids and max(ids) >= resident.vocabulary:
        raise BadRequest(
            f"{what} holds the token id {shorten(str(max(ids)))}, and the model has {resident.vocabulary:,} tokens: "
            "make the ids with its own tokenizer",
            param,
        )


def _decode(resident: Resident, ids: tuple[int, ...], skip_special: bool) -> str:
    return resident.tokenizer.decode(list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)


def _prompt_logprobs(
    resident: Resident, prompt: list[dict[int, tuple[float, int]] | None] | None
) -> list[dict[int, PromptLogProb] | None]:
    places = prompt or [None]
    texts = {t: _decode(resident, (t,), False) for t in set().union(*(place or () for place in places))}

    def entry(token: int, score: float, rank: int) -> PromptLogProb:
        return PromptLogProb(logprob=max(score, LEAST), rank=rank, decoded_token=texts[token])

    return [{t: entry(t, *known) for t, known in place.items()} if place else None for place in places]
