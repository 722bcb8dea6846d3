"""What a page shows, as a small frozen state that lives in the page's address: written there, and read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

ID_CHARACTERS = 32
MOST_PARTS = 100
NUMBER_DIGITS = 9


class PageView(BaseModel):
    """The state of one page. Its fields are the parameters of the address: texts, whole numbers from 0, lists.

    UNADDRESSED: fields that only the page itself sends back.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    UNADDRESSED: ClassVar[tuple[str, ...]] = ()

    def but(self, **changes: Any) -> Self:
        """The same view with changes."""
        return self.model_copy(update=changes)

    def cleaned(self) -> Self:
        """The view without what cannot be: an unknown name, a hostile id, too much."""
        return self

    def address(self) -> dict[str, str]:
        """The view as parameters of the page's address; what is as usual is empty, and left out of it."""
        usual = type(self)()
        return {
            name: "" if value == getattr(usual, name) else ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in self
            if name not in self.UNADDRESSED
        }

    @classmethod
    def of_address(cls, parameters: Mapping[str, str]) -> Self:
        """The view that an address names; what cannot be read is as usual."""
        given: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if name in cls.UNADDRESSED or name not in parameters:
                continue
            text = parameters[name]
            if isinstance(field.default, str):
                given[name] = text
            elif isinstance(field.default, tuple):
                given[name] = tuple(text.split(",")[:MOST_PARTS])
            elif text.isdecimal() and len(text) <= NUMBER_DIGITS:
                given[name] = int(text)
        return cls(**given).cleaned()

    @classmethod
    def of_page(cls, text: str | None) -> Self:
        """The view that a page sends back; an empty one when it is not what the page was given."""
        try:
            return cls.model_validate_json(text or "{}").cleaned()
        except ValidationError:
            return cls()


def an_id(text: str) -> str:
    """The text if it may be an id, else nothing."""
    return text if text.isalnum() and len(text) <= ID_CHARACTERS else ""


def one_of(names: Any, name: str) -> str:
    """The name if it is one of these, else the first of them."""
    return name if name in names else next(iter(names))


def noted(seen: str | None) -> dict[str, Any]:
    """What a page says it shows, as signs by part; nothing when that is not what the page was given."""
    try:
        found = json.loads(seen or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def sign_of(value: Any) -> str:
    """Another one for whatever looks different."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
