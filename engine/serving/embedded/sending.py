"""Replies as they go over the wire: JSON, or a stream of events."""

from __future__ import annotations

import json
from collections.abc import Iterator

from starlette.responses import Response

from engine.serving.embedded.limits import check_reply
from engine.serving.protocol import CompletionResponse, ErrorResponse, Message


def as_json(message: Message, status: int = 200) -> Response:
    """The message as JSON. Raises BadRequest when it is larger than may be sent."""
    return _response(message.model_dump_json(), status)


def as_stream(reply: CompletionResponse) -> Response:
    """The finished reply as a stream: one event for each choice. (Answers here are short; none is sent in parts.)

    Raises BadRequest when it is larger than may be sent.
    """

    def events() -> Iterator[str]:
        head = reply.model_dump(exclude={"choices", "usage"})
        for choice in reply.choices:
            content = {**head, "choices": [choice.model_dump(exclude_none=True)]}
            yield f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    return _response("".join(events()), media_type="text/event-stream")


def refusal(words: str, status: int) -> Response:
    """An error of the protocol with this sentence."""
    return as_json(ErrorResponse.of(status, words), status)


def _response(text: str, status: int = 200, media_type: str = "application/json") -> Response:
    content = text.encode()
    check_reply(len(content), "prompt")  # it may have become larger than was thought when it was asked for
    return Response(content, status, media_type=media_type)
