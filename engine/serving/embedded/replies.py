"""From a request of the protocol to what is computed, and from what was found to the reply.

Runs on the embedded server; the limits here keep one request from filling the machine's memory.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from engine.checks import shorten
from engine.evaluation.choice import option_batches, score_batch
from engine.models.source import ModelError
from engine.serving.embedded.decoding import Continuation, Wish
from engine.serving.embedded.residents import Resident
from engine.serving.embedded.scheduling import Alone, Completion
from engine.serving.protocol import (
    MOST_LOGPROB_TOKEN_IDS,
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

MOST_PROMPTS = 10_000
MOST_LOGPROBS = 1_000
MOST_STOPS = 16
# Log-probabilities in one reply.
MOST_FIGURES = 20_000_000
MOST_OPTION_SETS = 10_000
MOST_OPTIONS = 2_000
MOST_OPTION_TOKENS = 256
# Settings that other servers know and that would change the answer, with the values that do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "min_p", "min_tokens"), (None, 0)),
    **dict.fromkeys(("best_of", "repetition_penalty"), (None, 1)),
    **dict.fromkeys(("stop_token_ids", "allowed_token_ids", "bad_words"), (None, [])),
    **dict.fromkeys(("truncate_prompt_tokens", "response_format", "structured_outputs"), (None,)),
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "top_k": (None, 0, -1),
    "use_beam_search": (None, False),
}
# The logarithm that stands for "never" in JSON, which has no infinity; vLLM's own.
LEAST = -9999.0


class BadRequest(ModelError):
    """The request cannot be carried out; the message is one sentence. `param`: the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class CompletionJob(Completion):
    """A `CompletionRequest`; its future's result becomes a reply by `finish`. Raises BadRequest."""

    def __init__(self, request: CompletionRequest, model: str) -> None:
        super().__init__(model)
        self.request = request
        self.prompts = _prompts(request)
        self.rows = len(self.prompts) * (request.n or 1)
        _check_limits(request, self.rows)

    def wishes(self, resident: Resident) -> list[Wish]:
        """One wish for each choice: `n` of each prompt, one after the other.

        Raises BadRequest for ids that the model does not have, and prompts that are empty or longer than it reads.
        """
        request = self.request
        top, prompt_top = request.logprobs, request.prompt_logprobs
        if prompt_top is None and request.echo:
            prompt_top = top
        watched = tuple(request.logprob_token_ids or ())
        _check_ids(watched, resident, "logprob_token_ids", "one of logprob_token_ids")
        answers = [tuple(answer) for answer in request.score_answers or [[]] * len(self.prompts)]
        wishes: list[Wish] = []
        for number, prompt in enumerate(self._ids(resident), 1):
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

    def _ids(self, resident: Resident) -> Iterator[tuple[int, ...]]:
        for number, prompt in enumerate(self.prompts, 1):
            if isinstance(prompt, str):
                # A text far beyond the context need not be read to the end to be refused.
                text = prompt[: 100 * resident.context]
                prompt = resident.tokenizer.encode(text, add_special_tokens=self.request.add_special_tokens)
            ids = tuple(prompt)
            if not ids:
                raise BadRequest(f"prompt {number} is empty: give at least one token", "prompt")
            _check_ids(ids, resident, "prompt", f"prompt {number}")
            yield ids

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
            text = text[: text.index(it.stopped_by)]
        tokens = it.tokens
        scores: list[float | None] = [*it.scores]
        tops: list[dict[int, float] | None] = [*it.tops]
        if request.echo:
            text = _decode(resident, wish.prompt, request.skip_special_tokens) + text
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
        if not 0 < len(request.questions) <= MOST_PROMPTS:
            raise BadRequest(f"ask 1 to {MOST_PROMPTS:,} questions at once", "questions")
        if len(request.option_sets) > MOST_OPTION_SETS or any(
            not 0 < len(options) <= MOST_OPTIONS or not all(0 < len(o) <= MOST_OPTION_TOKENS for o in options)
            for options in request.option_sets
        ):
            raise BadRequest(
                f"each set holds 1 to {MOST_OPTIONS:,} options of 1 to {MOST_OPTION_TOKENS} tokens", "option_sets"
            )
        if any(q.options >= len(request.option_sets) for q in request.questions):
            raise BadRequest("a question names a set of options that is not there", "questions")
        if sum(len(request.option_sets[q.options]) for q in request.questions) > MOST_FIGURES:
            raise BadRequest("that is too much for one reply: ask fewer questions at once", "questions")

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


def _prompts(request: CompletionRequest) -> list[str | list[int]]:
    prompt: Any = request.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)


def _check_limits(request: CompletionRequest, rows: int) -> None:
    for name, neutral in _NEUTRAL.items():
        value = (request.model_extra or {}).get(name)
        if value not in neutral:
            raise BadRequest(f"‘{name}’ is not supported by the embedded server: leave it out, or use vLLM", name)
    if not 0 < rows <= MOST_PROMPTS:
        raise BadRequest(f"ask 1 to {MOST_PROMPTS:,} prompts at once, not {rows:,}", "prompt")
    if not (request.max_tokens or request.echo or request.max_tokens is None):
        raise BadRequest("max_tokens is 0: ask for at least one token, or for ‘echo’", "max_tokens")
    for name in ("logprobs", "prompt_logprobs"):
        if (getattr(request, name) or 0) > MOST_LOGPROBS:
            raise BadRequest(f"{name} is {getattr(request, name):,}: ask for at most {MOST_LOGPROBS:,}", name)
    if request.logprob_token_ids and request.logprobs is None:
        raise BadRequest("‘logprob_token_ids’ needs ‘logprobs’", "logprob_token_ids")
    if len(request.logprob_token_ids or ()) > MOST_LOGPROB_TOKEN_IDS:
        raise BadRequest(f"ask for at most {MOST_LOGPROB_TOKEN_IDS} logprob_token_ids", "logprob_token_ids")
    if request.score_answers is not None and len(request.score_answers) != rows // (request.n or 1):
        raise BadRequest("‘score_answers’ needs one list for each prompt", "score_answers")
    if any(len(answer) > MOST_OPTION_TOKENS for answer in request.score_answers or ()):
        raise BadRequest(f"an answer to score has at most {MOST_OPTION_TOKENS} tokens", "score_answers")
    if isinstance(request.stop, list) and len(request.stop) > MOST_STOPS:
        raise BadRequest(f"give at most {MOST_STOPS} stop texts", "stop")
    wide = max(request.logprobs or 0, len(request.logprob_token_ids or ()), request.prompt_logprobs or 0)
    if rows * (request.max_tokens or 16) * wide > MOST_FIGURES:
        raise BadRequest("that many log-probabilities do not fit into one reply: ask fewer prompts at once", "logprobs")


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
