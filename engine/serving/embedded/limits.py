"""What one request may ask for: what would fill the machine's memory is refused in words before it is computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.models.source import ModelError
from engine.serving.protocol import MOST_LOGPROB_TOKEN_IDS, CompletionRequest, OptionsRequest

MOST_PROMPTS = 10_000
MOST_LOGPROBS = 1_000
MOST_STOPS, MOST_STOP_CHARACTERS = 16, 1_000
MOST_OPTION_SETS = 10_000
MOST_OPTIONS = 2_000
MOST_OPTION_TOKENS = 256
# Of one reply, written as JSON; in memory it takes some ten times as much while it is made.
MOST_REPLY_BYTES = 16 * 2**20
# What stands in a reply, in bytes: a choice, a token's text or id, the log-probability of one alternative at one place
# of the answer and of the prompt, that of an option.
CHOICE, TOKEN, FIGURE, PROMPT_FIGURE, OPTION = 300, 8, 64, 96, 24
# Of the memory that is free, what the scores of one prompt may take; of one token of the vocabulary, with a copy in
# float32 and one of its logarithms.
SCORING_SHARE, SCORE_BYTES = 0.25, 12
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


class BadRequest(ModelError):
    """The request cannot be carried out; the message is one sentence. `param`: the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def check_completion(request: CompletionRequest, prompts: int) -> None:
    """Raises BadRequest for what can be seen of a request with so many prompts before its model is loaded."""
    for name, neutral in _NEUTRAL.items():
        value = (request.model_extra or {}).get(name)
        if value not in neutral:
            raise BadRequest(f"‘{name}’ is not supported by the embedded server: leave it out, or use vLLM", name)
    rows = prompts * (request.n or 1)
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
    if request.score_answers is not None and len(request.score_answers) != prompts:
        raise BadRequest("‘score_answers’ needs one list for each prompt", "score_answers")
    if any(len(answer) > MOST_OPTION_TOKENS for answer in request.score_answers or ()):
        raise BadRequest(f"an answer to score has at most {MOST_OPTION_TOKENS} tokens", "score_answers")
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > MOST_STOPS or any(len(stop) > MOST_STOP_CHARACTERS for stop in stops):
        raise BadRequest(f"give at most {MOST_STOPS} stop texts of {MOST_STOP_CHARACTERS:,} characters", "stop")


def check_options(request: OptionsRequest) -> None:
    """Raises BadRequest for more questions or options than are taken at once."""
    if not 0 < len(request.questions) <= MOST_PROMPTS:
        raise BadRequest(f"ask 1 to {MOST_PROMPTS:,} questions at once", "questions")
    if len(request.option_sets) > MOST_OPTION_SETS or any(
        not 0 < len(options) <= MOST_OPTIONS or not all(0 < len(o) <= MOST_OPTION_TOKENS for o in options)
        for options in request.option_sets
    ):
        raise BadRequest(
            f"each of at most {MOST_OPTION_SETS:,} sets holds 1 to {MOST_OPTIONS:,} options of 1 to "
            f"{MOST_OPTION_TOKENS} tokens",
            "option_sets",
        )
    if any(question.options >= len(request.option_sets) for question in request.questions):
        raise BadRequest("a question names a set of options that is not there", "questions")
    check_reply(options_bytes(request), "questions")


def check_reply(size: int, param: str) -> None:
    """Raises BadRequest when a reply of so many bytes is more than may be sent at once."""
    if size > MOST_REPLY_BYTES:
        raise BadRequest(
            f"the reply would take about {-(-size // 2**20):,} MiB, and may take {MOST_REPLY_BYTES // 2**20} MiB: ask "
            "for fewer prompts, tokens or log-probabilities at once",
            param,
        )


def check_scoring(length: int, vocabulary: int, free: int) -> None:
    """Raises BadRequest when scoring a prompt of so many tokens takes too much of the free memory (in bytes).

    A model says for each of its tokens how likely every token of its vocabulary would have been, all at once.
    """
    most = int(SCORING_SHARE * free) // (vocabulary * SCORE_BYTES)
    if length > most:
        raise BadRequest(
            f"the log-probabilities of a prompt of {length:,} tokens need more memory than is free: score at most "
            f"{most:,} tokens at once, or ask without ‘echo’ and ‘prompt_logprobs’",
            "prompt",
        )


def completion_bytes(request: CompletionRequest, lengths: Iterable[int], context: int = MOST_REPLY_BYTES) -> int:
    """About how many bytes the reply takes; lengths: of the prompts in tokens; context: what the model reads."""
    asked = 16 if request.max_tokens is None else request.max_tokens
    beside = max(request.logprobs or 0, len(request.logprob_token_ids or ()))
    ids = TOKEN if request.return_token_ids else 0
    spoken = TOKEN + (0 if request.logprobs is None else FIGURE * (2 + beside))
    written, read = spoken + ids, (spoken if request.echo else 0) + ids
    read += 0 if request.prompt_logprobs is None else PROMPT_FIGURE * (1 + request.prompt_logprobs)
    each = (CHOICE + length * read + min(asked, max(context - length, 0)) * written for length in lengths)
    return (request.n or 1) * sum(each)


def options_bytes(request: OptionsRequest) -> int:
    """About how many bytes the reply takes."""
    sizes = [len(options) for options in request.option_sets]
    return OPTION * sum(sizes[question.options] for question in request.questions)


def prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts one by one, each a text or token ids."""
    prompt: Any = request.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)


def most_lengths(prompts: Iterable[str | list[int]]) -> Iterable[int]:
    """How many tokens each prompt has at most, as far as can be told without a tokenizer."""
    return (len(prompt.encode()) if isinstance(prompt, str) else len(prompt) for prompt in prompts)
