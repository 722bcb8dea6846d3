"""YAML as people write descriptions: every plain value is text until a field's type says what it is.

YAML itself takes `No` for false, `0777` for 511, `1:59:59` for 7199 and a doubled key for its last value. Here
`subject: No` is the name ‘No’, and `epochs: 0777` is refused by the field, in words. Only `null`, `~` and nothing at
all are no value. Anchors, aliases and tags are refused: what they say can be written out.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 50
_NO_VALUE = ("", "null", "~")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # written in C where libyaml is there: ten times as fast


class Mapping(dict[str, Any]):
    """A mapping with the line that each key stands in, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


class Rows(list[Any]):
    """A list with the line that each entry begins in, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


def read_yaml(text: str) -> Any:
    """The one document in `text`: mappings, lists and texts. Raises ValueError with the line and what to do."""
    try:
        return _Builder().build(text)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_in_words(error, text)) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"it holds characters that YAML does not allow ({str(error).splitlines()[0]})") from error


class _Builder:
    """Puts parser events together without recursion, so that no nesting exhausts the stack."""

    def __init__(self) -> None:
        self._open: list[tuple[Mapping | Rows, list[str]]] = []  # containers, each with the key that waits for a value
        self._documents: list[Any] = []

    def build(self, text: str) -> Any:
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ValueError(
                    f"line {line}: YAML anchors and aliases (& and *) are not supported: "
                    "write the values out, or put a value that begins with such a sign in quotes"
                )
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._start(event, line)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._open.pop()
        if len(self._documents) > 1:
            raise ValueError("it holds more than one document (a line of ---): keep one")
        return self._documents[0] if self._documents else None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _refuse_tag(event, line)
        text = str(event.value)
        mapping, waiting = self._open[-1] if self._open else (None, [])
        if isinstance(mapping, Mapping) and not waiting:
            if text in mapping.lines:
                first = mapping.lines[text]
                raise ValueError(f"the key ‘{text[:60]}’ stands in line {first} and again in line {line}: keep one")
            mapping.lines[text] = line
            waiting.append(text)
            return
        no_value = not event.style and text in _NO_VALUE
        self._put(None if no_value else text, line)

    def _start(self, event: yaml.CollectionStartEvent, line: int) -> None:
        _refuse_tag(event, line)
        if self._open and isinstance(self._open[-1][0], Mapping) and not self._open[-1][1]:
            raise ValueError(f"line {line}: a list or a mapping can’t be a key: put it in quotes")
        if len(self._open) == MAX_DEPTH:
            raise ValueError(f"line {line}: nested more than {MAX_DEPTH} deep: nothing of a description is")
        container = Mapping() if isinstance(event, yaml.MappingStartEvent) else Rows()
        self._put(container, line)
        self._open.append((container, []))

    def _put(self, value: Any, line: int) -> None:
        if not self._open:
            self._documents.append(value)
            return
        container, waiting = self._open[-1]
        if isinstance(container, Rows):
            container.append(value)
            container.lines.append(line)
        else:
            container[waiting.pop()] = value


def _refuse_tag(event: Any, line: int) -> None:
    if event.tag is not None and event.tag != "!":
        raise ValueError(
            f"line {line}: YAML tags such as {event.tag[:40]} are not supported: write the value in quotes"
        )


def _in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"it is not valid YAML: {error.problem or error}"
    lines = text.splitlines()
    shown = lines[mark.line] if mark.line < len(lines) else ""
    said = f"line {mark.line + 1}: {error.problem or error.context}"
    indented = shown[: len(shown) - len(shown.lstrip())]
    if "\t" in indented:
        return f"{said}: it begins with a tab, so indent with spaces"
    cure = "put a value with signs such as : # @ % ` in quotes" if shown.strip() else "a bracket or quote is not closed"
    return f"{said}, at ‘{shown.strip()[:60]}’: {cure}" if shown.strip() else f"{said}: {cure}"
