"""What is said between client and model server: the part of OpenAI's completions that the lab uses.

Field names are OpenAI's and, where OpenAI has none, vLLM's, so that any OpenAI client can ask either server. A prompt
is text or token ids, one or many; a reply has one choice for each prompt, in their order. Only `/v1/score_options` and
`score_answers` are the lab's own: the embedded server has them (`Health.extensions` says so), vLLM has not.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")
# The first mistake is enough: a list of a million mistakes would make a million reports of them.
Many = Annotated[list[Item], Field(fail_fast=True)]
Id = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Prompt = str | Many[str] | Many[Id] | Many[Many[Id]]

# vLLM's limit on `logprob_token_ids` (MAX_LOGPROB_TOKEN_IDS in 0.32).
MOST_LOGPROB_TOKEN_IDS = 128
# The token a log-probability belongs to, as `return_tokens_as_token_ids` writes it.
TOKEN_ID = "token_id:"
SCORE_OPTIONS = "score_options"
SCORE_ANSWERS = "score_answers"
LOAD_BY_NAME = "load_by_name"


class Message(BaseModel):
    """Unknown fields are kept: the other side may be newer than this."""

    model_config = ConfigDict(extra="allow")


class CompletionRequest(Message):
    """`POST /v1/completions`.

    max_tokens: at most so many tokens of answer; 0 with `echo` only scores the prompt. temperature: 0 is greedy.
    logprobs: for each token of the answer (with `echo` of the prompt too) its own log-probability and those of the n
    most likely tokens. prompt_logprobs: the same for the prompt's tokens, by token id. logprob_token_ids: at each token
    of the answer the log-probabilities of exactly these tokens, at most `MOST_LOGPROB_TOKEN_IDS`; needs `logprobs`.
    add_special_tokens: whether a prompt of text gets the tokenizer's special tokens, such as a beginning token; unset,
    the embedded server puts around it what training and evaluation do (vLLM adds what the saved tokenizer does).
    return_tokens_as_token_ids: tokens in `logprobs` read `token_id:17`. return_token_ids: the choice brings `token_ids`
    and `prompt_token_ids`. score_answers (where `Health.extensions` names it): for each prompt token ids whose ln P
    behind the prompt comes back as `answer_logprob`; an empty list asks for none. All log-probabilities are natural
    logarithms of the model's own distribution, before temperature and top_p.
    """

    model: str | None = None
    prompt: Prompt
    max_tokens: Count | None = 16
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    echo: bool | None = False
    logprobs: Count | None = None
    prompt_logprobs: Count | None = None
    logprob_token_ids: Many[Id] | None = None
    stop: str | Many[str] | None = None
    ignore_eos: bool = False
    add_special_tokens: bool | None = None
    skip_special_tokens: bool = True
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    score_answers: Many[Many[Id]] | None = None
    n: Annotated[int, Field(ge=1, lt=2**63)] | None = 1
    stream: bool | None = False


class LogProbs(Message):
    """The tokens of an answer: for each its text (or `token_id:N`), log-probability, alternatives, place in the text.

    `top_logprobs[i]` maps tokens to log-probabilities; the chosen token is always among them.
    """

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []
    text_offset: list[int] = []


class PromptLogProb(Message):
    """One token's log-probability at one place of the prompt; `rank` 1 is the most likely of the vocabulary."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class Choice(Message):
    """The answer to one prompt. `finish_reason`: `stop` (an end token or stop text) or `length`.

    `prompt_logprobs[i]` maps token ids to what is known of them at place i; the first place has none.
    """

    index: int
    text: str
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: LogProbs | None = None
    prompt_logprobs: list[dict[int, PromptLogProb] | None] | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    answer_logprob: float | None = None


class Usage(Message):
    """Tokens read and written."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    total_tokens: int = 0


class CompletionResponse(Message):
    """The reply to a `CompletionRequest`."""

    id: str
    object: str = "text_completion"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[Choice]
    usage: Usage = Usage()


class ModelCard(Message):
    """A model that can be asked. `parent`: the base of an adapter; `root`: where it lies; max_model_len in tokens."""

    id: str
    object: str = "model"
    created: int = Field(default_factory=lambda: int(time.time()))
    owned_by: str = "rote-lab"
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class ModelList(Message):
    """The reply to `GET /v1/models`."""

    object: str = "list"
    data: list[ModelCard]


class LoadAdapterRequest(Message):
    """`POST /v1/load_lora_adapter`: offer the adapter in the folder `lora_path` under the name `lora_name`.

    load_inplace: put it in the place of one that has the name already, which is refused otherwise.
    """

    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadAdapterRequest(Message):
    """`POST /v1/unload_lora_adapter`: forget an adapter."""

    lora_name: str


class OptionsQuestion(Message):
    """A prompt (token ids) with the place, in the request's `option_sets`, of the options it offers."""

    prompt: Many[Id]
    options: Id


class OptionsRequest(Message):
    """`POST /v1/score_options`: ln P(option | prompt) of every option of every question.

    option_sets: lists of options, each option its token ids (at least one).
    """

    model: str
    questions: Many[OptionsQuestion]
    option_sets: Many[Many[Many[Id]]]


class OptionsResponse(Message):
    """For each question the log-probabilities of its options, in their order."""

    model: str
    log_probabilities: list[list[float]]


class Health(Message):
    """The reply to `GET /health`; vLLM's is empty, which reads as these defaults.

    extensions: `score_options`, `score_answers`, and `load_by_name` (a model named `RUN/CHECKPOINT` is loaded when it
    is first asked).
    loaded: names of the models in memory.
    """

    server: Literal["vllm", "embedded"] = "vllm"
    extensions: list[str] = []
    loaded: list[str] = []
    device: str | None = None


class ErrorInfo(Message):
    """What went wrong, in words for a person. `code`: the HTTP status; `param`: the field at fault."""

    message: str
    type: str = "BadRequestError"
    param: str | None = None
    code: int | str | None = None


class ErrorResponse(Message):
    """The body of every reply that is not a success."""

    error: ErrorInfo

    @classmethod
    def of(cls, status: int, message: str, **more: Any) -> ErrorResponse:
        """An error with the type that OpenAI's clients expect for this status."""
        types = {400: "BadRequestError", 404: "NotFoundError", 413: "BadRequestError", 422: "BadRequestError"}
        return cls(error=ErrorInfo(message=message, type=types.get(status, "InternalServerError"), code=status, **more))
