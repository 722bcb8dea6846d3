"""The one client of model servers, for page, command line and tests; knows no torch.

client = ServerClient("http://127.0.0.1:8100")
client.complete("RUN/generalised@20", [[17, 4, 99]], max_tokens=50)
client.score("RUN/generalised@20", [([17, 4, 99], [8, 3])])     # [ln P(8, 3 | 17, 4, 99)]

One client may be used from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from engine.serving.mistakes import SURROGATE, unreadable
from engine.serving.protocol import (
    SCORE_OPTIONS,
    Choice,
    CompletionRequest,
    CompletionResponse,
    ErrorResponse,
    Health,
    LoadAdapterRequest,
    Message,
    ModelCard,
    ModelList,
    OptionsQuestion,
    OptionsRequest,
    OptionsResponse,
    Prompt,
    UnloadAdapterRequest,
)
from engine.serving.traffic import asking

Ids = Sequence[int]
Item = TypeVar("Item")
Kind = TypeVar("Kind", bound=Message)
# Tokens whose log-probabilities are asked for in one request: what comes back for them is well below a server's limit.
MOST_TOKENS = 100_000
# A thousand questions to a large model on a CPU take minutes; a server that is gone is noticed at once anyway.
TIMEOUT = httpx.Timeout(600, connect=5)
HEALTH_TIMEOUT = 5.0


class ServingError(RuntimeError):
    """A question could not be answered; the message is one sentence for the person who asked."""


class ServerUnreachable(ServingError):
    """Nothing answers at the address, or the server ended in the middle of an answer: it may be asked again later."""


class TooSlow(ServerUnreachable):
    """The server took the question, and its answer did not come in time: fewer at once may be answered."""


class Refused(ServingError):
    """The server says what is wrong with the request; asking again changes nothing. `status`: the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerClient:
    """Speaks to one model server, `base_url` without `/v1`."""

    def __init__(
        self, base_url: str, timeout: httpx.Timeout | float = TIMEOUT, names: Mapping[str, str] | None = None
    ) -> None:
        """`names`: what this server calls models that are asked for by another name."""
        self._names = dict(names or {})
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, trust_env=False)
        self._health: Health | None = None
        self._contexts: dict[str, int | None] = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def health(self) -> Health:
        """What the server says of itself, within seconds. Raises ServerUnreachable, or Refused when it is unwell."""
        reply = self._send("GET", "/health", timeout=HEALTH_TIMEOUT)
        self._health = _read(reply, Health) if reply.content.strip() else Health()
        return self._health

    def offers(self, extension: str) -> bool:
        """Whether the server has an extension of the protocol (`SCORE_OPTIONS`, `LOAD_BY_NAME`); asked once."""
        return extension in (self._health or self.health()).extensions

    def models(self) -> list[ModelCard]:
        """The models that can be asked."""
        return _read(self._send("GET", "/v1/models"), ModelList).data

    def context(self, model: str) -> int | None:
        """How many tokens a model reads at most, prompt and answer together; None where the server does not say."""
        model = self._names.get(model, model)
        if model not in self._contexts:
            self._contexts |= {card.id: card.max_model_len for card in self.models()}
        return self._contexts.get(model)

    def complete(self, model: str, prompts: Prompt, **settings: Any) -> CompletionResponse:
        """One choice for each prompt (texts or token ids); settings: the fields of `CompletionRequest`.

        Raises ServerUnreachable and Refused.
        """
        request = _made(CompletionRequest, model=self._names.get(model, model), prompt=prompts, **settings)
        return self._post("/v1/completions", request, CompletionResponse)

    def score(self, model: str, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """ln P(answer | prompt) of each (prompt ids, answer ids), the sum over the answer's tokens.

        Every answer needs at least one token. Raises ServerUnreachable and Refused.
        """
        scores: list[float] = []
        for part in in_parts(pairs, lambda pair: len(pair[0]) + len(pair[1]), MOST_TOKENS):
            fed = [[*prompt, *answer] for prompt, answer in part]
            reply = self.complete(model, fed, max_tokens=1, temperature=0.0, prompt_logprobs=0)
            scores += [_sum_of_last(choice, answer) for choice, (_, answer) in zip(reply.choices, part, strict=True)]
        return scores

    def score_options(
        self, model: str, questions: Sequence[tuple[Ids, int]], option_sets: Sequence[Sequence[Ids]]
    ) -> list[list[float]]:
        """ln P(option | prompt) of every option: questions are (prompt ids, place in `option_sets`).

        Only where `offers(SCORE_OPTIONS)`; see `engine.serving.asking.ranking` for both servers.
        """
        request = _made(
            OptionsRequest,
            model=self._names.get(model, model),
            questions=[_made(OptionsQuestion, prompt=list(prompt), options=place) for prompt, place in questions],
            option_sets=[[list(option) for option in options] for options in option_sets],
        )
        return self._post(f"/v1/{SCORE_OPTIONS}", request, OptionsResponse).log_probabilities

    def load_adapter(self, name: str, folder: Path, inplace: bool = False) -> None:
        """Offer the adapter in `folder` under `name`; the folder must lie where the server allows.

        inplace: put it in the place of one that has the name already. Raises Refused.
        """
        request = LoadAdapterRequest(lora_name=name, lora_path=str(folder), load_inplace=inplace)
        self._send("POST", "/v1/load_lora_adapter", request)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Raises Refused when there is none of that name."""
        self._send("POST", "/v1/unload_lora_adapter", UnloadAdapterRequest(lora_name=name))

    def _post(self, path: str, request: Message, kind: type[Kind]) -> Kind:
        with asking(self.base_url):
            return _read(self._send("POST", path, request), kind)

    def _send(self, method: str, path: str, body: Message | None = None, **more: Any) -> httpx.Response:
        try:
            content = body.model_dump_json(exclude_unset=True).encode() if body is not None else None
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise Refused(SURROGATE, 400) from error
        headers = {"Content-Type": "application/json"} if content else {}
        try:
            reply = self._http.request(method, path, content=content, headers=headers, **more)
        except httpx.TimeoutException as error:
            kind = TooSlow if body is not None and isinstance(error, httpx.ReadTimeout) else ServerUnreachable
            raise kind(f"the model server at {self.base_url} does not answer in time") from error
        except httpx.HTTPError as error:
            raise ServerUnreachable(
                f"the model server at {self.base_url} is not running, or ended in the middle of the answer"
            ) from error
        if reply.is_error:
            raise Refused(_message(reply), reply.status_code)
        return reply


def in_parts(items: Sequence[Item], size: Callable[[Item], int], most: int) -> Iterator[Sequence[Item]]:
    """The items in their order, in parts whose sizes add up to at most `most`; a larger one is a part by itself."""
    start = total = 0
    for place, item in enumerate(items):
        if (total := total + size(item)) > most and place > start:
            yield items[start:place]
            start, total = place, size(item)
    if start < len(items):
        yield items[start:]


def _made(kind: type[Kind], **fields: Any) -> Kind:
    """The message with these fields. Raises Refused, as the server would, for what is none."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise Refused(str(unreadable(error)), 400) from error


def _read(reply: httpx.Response, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(reply.content)
    except ValidationError as error:
        raise ServingError("the model server sent something that is not its protocol: is another program there?") from (
            error
        )


def _sum_of_last(choice: Choice, answer: Ids) -> float:
    places = (choice.prompt_logprobs or [])[-len(answer) :]
    return sum((place or {})[token].logprob for place, token in zip(places, answer, strict=True))


def _message(reply: httpx.Response) -> str:
    try:
        return ErrorResponse.model_validate_json(reply.content).error.message
    except ValidationError:
        return f"the model server answered with status {reply.status_code}"
