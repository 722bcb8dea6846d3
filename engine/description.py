"""Descriptions as text: YAML and JSON into plain data, single settings changed, and mistakes in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ValidationError

MAX_FILE_BYTES = 20_000_000


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few bytes of nested aliases expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("YAML anchors and aliases (& and *) are not supported: write the values out")
        return super().compose_node(parent, index)


def read_mapping(text: str, field: str = "relations") -> dict[str, Any]:
    """Parse YAML or JSON into a mapping, which has at least `field`. Raises ValueError that says what to do."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise ValueError(f"the description is larger than {MAX_FILE_BYTES // 1_000_000} MB: split it up")
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the description is neither YAML nor JSON: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(data, dict):
        raise ValueError(f"the description must be a mapping with at least the field ‘{field}’")
    return data


def override(data: dict[str, Any], assignment: str) -> None:
    """Apply one `path.to.field=value` (value in YAML) to plain data, in place.

    Raises ValueError when the path does not exist or the assignment has no `=`.
    """
    path, sign, text = assignment.partition("=")
    if not sign or not path.strip():
        raise ValueError(f"‘{assignment}’ is not of the form path.to.field=value, such as stage1.epochs=10")
    *parents, last = path.strip().split(".")
    target: Any = data
    for part in parents:
        try:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        except (ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"there is no ‘{part}’ in ‘{path}’") from error
    try:
        value = yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"the value of ‘{path}’ is not valid YAML: {text}") from error
    try:
        target[int(last) if isinstance(target, list) else last] = value
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"there is no ‘{last}’ in ‘{path}’") from error


def explain(error: ValidationError, what: str = "an experiment") -> str:
    """A validation error of the description of `what` in words: one sentence for each field, at most eight."""
    lines = list(_sentences(error, what))
    return "; ".join(lines[:8]) + (f"; and {len(lines) - 8} more" if len(lines) > 8 else "")


def _sentences(error: ValidationError, what: str) -> Iterator[str]:
    for item in error.errors(include_url=False):
        # Union members (GeneratedFacts, tuple[...]) are how the code says it, not where the person wrote it.
        parts = [str(p) for p in item["loc"] if not (isinstance(p, str) and ("[" in p or p[:1].isupper()))]
        place = ".".join(parts)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"is not a setting of {what}: check the spelling"
        yield f"{place}: {message}" if place else message


class Described(BaseModel):
    """What people write as YAML or JSON. `FIELD`: a field that every such text has; `THING`: what it describes."""

    FIELD: ClassVar[str] = "relations"
    THING: ClassVar[str] = "an experiment"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read YAML or JSON. Raises ValueError with one sentence a problem (see `explain`)."""
        return cls.from_data(read_mapping(text, cls.FIELD))

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """Validate plain data. Raises ValueError with one sentence a problem."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(explain(error, cls.THING)) from error

    def to_yaml(self) -> str:
        """The whole description as YAML; `from_text` reads it back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json"), allow_unicode=True, sort_keys=False, width=120)
