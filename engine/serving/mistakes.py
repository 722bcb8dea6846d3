"""What is wrong with a message of the protocol, in words for whoever sent it; for the servers and for the client."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.checks import shorten

Kind = TypeVar("Kind", bound=BaseModel)
SURROGATE = (
    "the request holds half of a surrogate pair (such as \\ud800), which is no character: send text that can be "
    "written as UTF-8"
)
# What fields take that may be several things, of which the library would name the first only.
_TAKES = {
    "prompt": "a text, a list of token ids (whole numbers from 0 up), or a list of several of either",
    "stop": "a text or a list of texts",
}


class Unreadable(ValueError):
    """A message that is not as the protocol has it; the text is one sentence. `param`: the field at fault."""

    def __init__(self, words: str, param: str | None = None) -> None:
        super().__init__(words)
        self.param = param


def read(kind: type[Kind], content: bytes) -> Kind:
    """The message that JSON holds. Raises Unreadable."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise unreadable(error) from None


def unreadable(error: ValidationError) -> Unreadable:
    """What the library found wrong, as one sentence."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return Unreadable(_no_json(first["msg"]))
    if not first["loc"]:
        return Unreadable("the request is no JSON object: see docs/asking.md for an example")
    field = shorten(str(first["loc"][0]))
    return Unreadable(f"{field}: {_words(field, found)}", field)


def _no_json(message: str) -> str:
    if "surrogate" in message or "hex escape" in message:
        return SURROGATE
    if "recursion" in message:
        return "the request puts too many lists into lists: send it as docs/asking.md shows"
    if "out of range" in message:
        return "the request holds a number that is far too large: send it as docs/asking.md shows"
    return "the request is not JSON: see docs/asking.md for an example"


def _words(field: str, found: list[Any]) -> str:
    if any(error["type"] == "greater_than_equal" and len(error["loc"]) > 1 for error in found):
        return "holds a negative number, and token ids are whole numbers from 0 up"
    if field in _TAKES and found[0]["type"] != "missing":
        return f"should be {_TAKES[field]}"
    if found[0]["type"] == "missing":
        return "is missing"
    return shorten(str(found[0]["msg"]).removeprefix("Input ").removeprefix("Field "), 200)
