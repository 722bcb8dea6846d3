"""The turns of a chat template: what it writes before a question, and between the question and its answer.

Templates are programs in Jinja that come with a model. They run in Jinja's sandbox, which changes nothing outside, as
transformers runs them (`transformers.utils.chat_template_utils`), but for the date: a text must be the same tomorrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.checks import shorten
from engine.models.reading import inside_file, read_json
from engine.models.source import ModelError

FILE = "chat_template.jinja"
TODAY = datetime(2024, 7, 26)  # what Llama 3's template itself says where it is told no date
MOST_BYTES = 1_000_000
# Words that no template writes and none changes.
_QUESTION, _ANSWER = "Qwhatisaskedq", "Awhatisanswereda"


def chat_template(folder: Path) -> str:
    """The chat template of the model in a folder, '' where it has none. Raises ModelError when it cannot be read."""
    if file := inside_file(folder, FILE):
        if file.stat().st_size > MOST_BYTES:
            raise ModelError(f"{FILE} is larger than a chat template is: set model_text.form to ‘raw’")
        return file.read_text(encoding="utf-8", errors="replace")
    found = (read_json(folder, "tokenizer_config.json") or {}).get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def turns_of(template: str, tokens: Mapping[str, str]) -> tuple[str, str]:
    """What the template writes (before the user's turn, between it and the model's).

    tokens: the texts of special tokens, such as `bos_token`. Raises ModelError where the two turns can't be found in
    what it writes.
    """
    return _turns_of(template, tuple(sorted(tokens.items())))


@lru_cache(maxsize=16)
def _turns_of(template: str, tokens: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = _environment().from_string(template).render(
            messages=turns, tools=None, documents=None, add_generation_prompt=False, **dict(tokens)
        )  # fmt: skip
    except (RecursionError, MemoryError, TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
            AttributeError) as error:  # fmt: skip
        raise ModelError(_unusable(shorten(" ".join(str(error).split()) or type(error).__name__, 120))) from error
    before, question, rest = text.partition(_QUESTION)
    between, answer, _ = rest.partition(_ANSWER)
    if not question or not answer or text.count(_QUESTION) + text.count(_ANSWER) != 2:
        raise ModelError(_unusable("it does not write a question and its answer as they are"))
    return before, between


def _unusable(reason: str) -> str:
    return f"the model's chat template cannot be used ({reason}): set model_text.form to ‘raw’"


class _Generation(Extension):
    """`{% generation %}`, by which templates mark what a model writes: here only its contents matter."""

    tags = {"generation"}  # noqa: RUF012 (the base class's own way to say it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = TODAY.strftime
    return made


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
