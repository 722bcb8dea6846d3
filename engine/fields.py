"""What the fields of a description hold: short names, texts, languages and numbers, each read in one way and refused in
words."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from engine import checks
from engine.description import read_as

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=1)]


def label(most: int = 200, least: int = 0, without: str = "") -> AfterValidator:
    """A short text in one line, as it is kept; `without` are signs that it may not hold. Refuses it in words."""

    def read(text: str) -> str:
        cleaned = checks.clean(text)
        _refuse_unseen(cleaned)
        if len(cleaned) < least:
            raise PydanticCustomError("string_too_short", "is empty: fill it in")
        if len(cleaned) > most:
            message = "is longer than {max_length} characters: shorten it"
            raise PydanticCustomError("string_too_long", message, {"max_length": most})
        if any(sign in cleaned for sign in without):
            message = "holds one of the signs {signs}: leave it out"
            raise PydanticCustomError("string_pattern_mismatch", message, {"signs": " ".join(without)})
        return cleaned

    return read_as(read)


def _paragraph(text: str) -> str:
    """A text in lines, without spaces around it. Raises PydanticCustomError when something in it cannot be seen."""
    cleaned = checks.compose(text).replace("\r\n", "\n").strip(" \n\t")
    _refuse_unseen(cleaned.replace("\t", " ").replace("\n", " "))
    return cleaned


def stripped(text: str) -> str:
    """A name of a file or a model without spaces around it: those within may be its own."""
    _refuse_unseen(text.strip())
    return text.strip()


def _refuse_unseen(text: str) -> None:
    if hidden := checks.invisible_character(text):
        raise PydanticCustomError("unseen", "holds the invisible character {hidden}: remove it", {"hidden": hidden})


def _language(code: object) -> object:
    if isinstance(code, str) and not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", code):
        message = "‘{code}’ is no language code: write one such as en, de or pt-BR"
        raise PydanticCustomError("language", message, {"code": checks.shorten(code)})
    return code


Label = Annotated[str, Field(max_length=10_000), label()]
Paragraph = Annotated[str, Field(max_length=2000), read_as(_paragraph)]
Language = Annotated[str, Field(max_length=40), BeforeValidator(_language)]


@lru_cache
def _holds_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_holds_numbers(part) for part in get_args(annotation))


class Frozen(BaseModel):
    """Unknown fields are errors: a misspelt setting must not be silently ignored. Nor is a number read as another."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _one_way_to_read_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """‘0777’ and ‘1_000’ are other numbers to other programmes, and pydantic takes true for 1."""
        annotation: Any = cls.model_fields[info.field_name or ""].annotation
        if _holds_numbers(annotation):
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, bool):
                    raise PydanticCustomError("number", "must be a number, not true or false")
                if isinstance(part, str) and re.match(r"[+-]?0[0-9_]|[+-]?[0-9.]*_|.*[^\x00-\x7f]", part):
                    message = "‘{part}’ may be read as more than one number: write it with plain digits, no 0 in front"
                    raise PydanticCustomError("number", message, {"part": checks.shorten(part)})
        return value
