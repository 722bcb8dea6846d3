"""Descriptions as text: YAML and JSON into plain data, single settings changed, and mistakes in words."""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

from engine.checks import shorten
from engine.plain_yaml import Mapping, Rows, read_yaml

MAX_FILE_BYTES = 20_000_000
_SAID_CHANGES = 8
_QUOTES = re.compile(r"""(?<!\w)['"]|['"](?!\w)""")  # around a value, not within one


def read_mapping(text: str, field: str = "relations") -> dict[str, Any]:
    """Parse YAML or JSON into a mapping, which has at least `field`. Raises ValueError that says what to do.

    YAML's plain values stay text (see `engine.plain_yaml`): a field's type decides what they are.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise ValueError(f"the description is larger than {MAX_FILE_BYTES // 1_000_000} MB: split it up")
    data = _read_json(text) if text.lstrip().startswith("{") else None
    if data is None:
        try:
            data = read_yaml(text)
        except ValueError as error:
            raise ValueError(f"the description can’t be read as YAML or JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"the description must be a mapping with at least the field ‘{field}’")
    return data


def _read_json(text: str) -> Any:
    """The text as JSON, None when it is none. Raises ValueError on a doubled key and on NaN and Infinity."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            lines = [i for i, line in enumerate(text.splitlines(), 1) if json.dumps(twice, ensure_ascii=False) in line]
            where = f" (it stands in the lines {', '.join(map(str, lines[:6]))})" if lines else ""
            raise _Refused(f"the description has the key ‘{shorten(twice)}’ twice in one mapping: keep one{where}")
        return data

    def refuse(name: str) -> None:
        raise _Refused(f"the description holds {name}, which is no number that can be used: write another")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError):
        return None


class _Refused(Exception):
    """JSON that says something twice, or something that is no number."""


def override(data: dict[str, Any], assignment: str) -> None:
    """Apply one `path.to.field=value` (value in YAML) to plain data, in place.

    Raises ValueError when the path does not exist or the assignment has no `=`.
    """
    path, sign, text = assignment.partition("=")
    if not sign or not path.strip():
        raise ValueError(f"‘{assignment}’ is not of the form path.to.field=value, such as stage1.epochs=10")
    try:
        value = read_yaml(text)
    except ValueError as error:
        raise ValueError(f"the value of ‘{path}’ is not valid YAML: {text} ({error})") from error
    put(data, path.strip(), value)


def put(data: dict[str, Any], path: str, value: Any) -> None:
    """Set the field of plain data to which a path such as `stage1.epochs` leads. Raises ValueError if to none."""
    *parents, last = path.split(".")
    target: Any = data
    for part in parents:
        try:
            if isinstance(target, dict) and target.get(part) is None:
                target[part] = {}  # what was left out, such as replay, is there once something of it is said
            target = target[int(part)] if isinstance(target, list) else target[part]
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"there is no ‘{part}’ in ‘{path}’") from error
    try:
        target[int(last) if isinstance(target, list) else last] = value
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"there is no ‘{last}’ in ‘{path}’") from error


def explain(error: ValidationError, kind: type[Described], data: Any = None) -> str:
    """A validation error of a description in words: one sentence for each field, at most eight.

    `data`: what was described; where it was read from YAML, the lines are said too.
    """
    lines = list(_sentences(error, kind, data))
    return "; ".join(lines[:8]) + (f"; and {len(lines) - 8} more" if len(lines) > 8 else "")


def _sentences(error: ValidationError, kind: type[Described], data: Any) -> Iterator[str]:
    found: dict[tuple[str, ...], list[str]] = {}
    for item in error.errors(include_url=False):
        # Union members (GeneratedFacts, tuple[...]) are how the code says it, not where the person wrote it.
        place = tuple(str(p) for p in item["loc"] if not (isinstance(p, str) and ("[" in p or p[:1].isupper())))
        said = found.setdefault(place, [])
        if (words := _words(item, kind, place)) not in said:
            said.append(words)
    for place, said in found.items():
        # What is wrong with a whole (‘is no list’, ‘has no item’) follows from what is wrong within it.
        if any(len(other) > len(place) and other[: len(place)] == place for other in found):
            said = [words for words in said if not words.startswith("must ")]
        if said:
            where = ".".join(place)
            line = _line(data, place)
            where += f" (line {line})" if line and where else ""
            yield f"{where}: {', or '.join(said)}" if where else ", or ".join(said)


def _line(data: Any, place: Sequence[str]) -> int | None:
    """The line of the innermost part of `place` that was written."""
    line = None
    for part in place:
        try:
            if isinstance(data, Rows):
                line, data = data.lines[int(part)], data[int(part)]
            elif isinstance(data, Mapping):
                line, data = data.lines.get(part, line), data[part]
            else:
                data = data[int(part)] if isinstance(data, list | tuple) else data[part]
        except (KeyError, IndexError, TypeError, ValueError):
            break
    return line


def _words(item: Any, described: type[Described], place: Sequence[str]) -> str:
    kind, value, limits = item["type"], item["input"], item.get("ctx", {})
    quoted = f"‘{shorten(str(value))}’"
    if kind == "extra_forbidden":
        return f"is not a setting of {described.THING}: check the spelling{_meant(described, place)}"
    if kind == "missing":
        return "is missing: write it down"
    if kind in ("string_type", "string_unicode"):
        return _must_be_text(value, place[-1] if place else "name")
    sentences = {
        "int_parsing": f"must be a whole number, not {quoted}",
        "int_type": f"must be a whole number, not {quoted}",
        "int_from_float": f"must be a whole number, not {quoted}",
        "int_parsing_size": f"must be a smaller number than {quoted}",
        "float_parsing": f"must be a number, not {quoted}",
        "float_type": f"must be a number, not {quoted}",
        "finite_number": f"must be a number that is not endless, not {quoted}",
        "bool_parsing": f"must be true or false, not {quoted}",
        "bool_type": f"must be true or false, not {quoted}",
        "tuple_type": f"must be a list, such as [{shorten(str(value))}], not {quoted}",
        "list_type": f"must be a list, such as [{shorten(str(value))}], not {quoted}",
        "string_too_short": "is empty: fill it in",
        "string_too_long": f"is longer than {limits.get('max_length')} characters: shorten it",
        "too_short": "must have at least one entry",
        "too_long": f"must have at most {limits.get('max_length')} entries",
        "dict_type": f"must be a mapping, with a key and a value in each line, not {quoted}",
        "model_type": f"must be a mapping, with a key and a value in each line, not {quoted}",
        "model_attributes_type": f"must be a mapping, with a key and a value in each line, not {quoted}",
        "literal_error": f"must be {_QUOTES.sub('', str(limits.get('expected', '')))}, not {quoted}",
    }
    if kind in ("int_type", "float_type", "bool_type", "tuple_type", "dict_type", "literal_error") and value is None:
        return "must have a value: write one, or leave the whole line out"
    return sentences.get(kind) or item["msg"].removeprefix("Value error, ").replace("Input should", "must").replace(
        "Tuple should", "must"
    )


def _meant(described: type[BaseModel], place: Sequence[str]) -> str:
    """‘, do you mean …?’ where a setting beside the unknown one at `place` is spelt nearly so."""
    models = [described]
    for part in place[:-1]:
        if not part.isdecimal():
            models = [
                m
                for model in models
                if part in model.model_fields
                for m in _models_in(model.model_fields[part].annotation)
            ]
    known = [name for model in models for name in model.model_fields]
    close = difflib.get_close_matches(place[-1], known, 1) if place else []
    return f", do you mean ‘{close[0]}’?" if close else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _must_be_text(value: Any, field: str) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        written = f"[{', '.join(value)}]"
        return (
            f'must be text, but {shorten(written)} is a list: write it in quotes, as in {field}: "{shorten(written)}"'
        )
    if value is None:
        return f'must be text, but is empty or null: write it in quotes, as in {field}: "null", if that is meant'
    if isinstance(value, dict):
        return f'must be text, but is a mapping: write it in quotes, as in {field}: "{{X}}"'
    return f'must be text, but {shorten(str(value))} is not: write it in quotes, as in {field}: "{shorten(str(value))}"'


def changes(data: Any, model: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """(place, as written, as read) of every text that was read otherwise than it was written, such as its spaces."""
    if data is model or (isinstance(data, list) and tuple(data) == model):
        return
    if isinstance(data, str) and isinstance(model, str):
        if data != model:
            yield place, data, model
    elif isinstance(data, dict) and isinstance(model, tuple):  # prompts as split → language → texts
        for i, (text, prompt) in enumerate(zip(_texts(data), model, strict=False)):
            yield from changes(text, getattr(prompt, "text", text), f"{place}.{i}.text")
    elif isinstance(data, dict):
        for key, value in data.items():
            below = model.get(key) if isinstance(model, dict) else getattr(model, str(key), None)
            yield from changes(value, below, f"{place}.{key}" if place else str(key))
    elif isinstance(data, list | tuple) and isinstance(model, list | tuple):
        for i, (value, below) in enumerate(zip(data, model, strict=False)):
            yield from changes(value, below, f"{place}.{i}")


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _texts(value)


def _say_changes(data: Any, model: Any) -> list[str]:
    found = list(changes(data, model))
    said = []
    for place, before, after in found[:_SAID_CHANGES]:
        line = _line(data, place.split("."))
        where = f"{place} (line {line})" if line else place
        said.append(f"{where}: ‘{shorten(before)}’ was read as ‘{shorten(after)}’")
    if len(found) > _SAID_CHANGES:
        said.append(f"and {len(found) - _SAID_CHANGES:,} more texts were read with other spaces or composed accents")
    return said


# pydantic's context of what was kept: it may be of an older lab, which took what this one refuses or cleans.
RECORD = {"record": True}


def is_record(info: ValidationInfo) -> bool:
    """Whether what is validated was kept of a run, and is to be read as it is."""
    return info.context is RECORD


def read_as(change: Callable[[Any], Any]) -> AfterValidator:
    """A validator that reads a typed value as `change` gives it, and leaves one alone that was kept of a run."""
    return AfterValidator(lambda value, info: value if is_record(info) else change(value))


class ReadOtherwise(UserWarning):
    """A text was read otherwise than it was written: single spaces, none at the ends, composed accents."""


class Described(BaseModel):
    """What people write as YAML or JSON. `FIELD`: a field that every such text has; `THING`: what it describes."""

    FIELD: ClassVar[str] = "relations"
    THING: ClassVar[str] = "an experiment"

    @classmethod
    def from_text(cls, text: str, notes: list[str] | None = None) -> Self:
        """Read YAML or JSON. Raises ValueError with one sentence a problem (see `explain`)."""
        return cls.from_data(read_mapping(text, cls.FIELD), notes)

    @classmethod
    def from_data(cls, data: Any, notes: list[str] | None = None) -> Self:
        """Validate plain data. Raises ValueError with one sentence a problem.

        What was read otherwise than it was written is added to `notes`; without them it is a `ReadOtherwise` warning.
        """
        try:
            made = cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(explain(error, cls, data)) from error
        said = _say_changes(data, made)
        if notes is not None:
            notes += said
        elif said:
            warnings.warn("; ".join(said), ReadOtherwise, stacklevel=2)
        return made

    @classmethod
    def from_record(cls, data: Any) -> Self:
        """What was kept of a run, as it was run: without the cleaning and the checks that new descriptions go through.

        Raises ValueError where it is no such description at all.
        """
        try:
            return cls.model_validate(data, context=RECORD)
        except ValidationError as error:
            raise ValueError(explain(error, cls, data)) from error

    def to_yaml(self) -> str:
        """The whole description as YAML; `from_text` reads it back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json"), allow_unicode=True, sort_keys=False, width=120)
