"""What a file does not say of itself, and what a person is therefore asked: code page, separator, header, columns.

imported = read_facts(data, "mothers.csv")
for question in imported.asked:                       # each is an error in `imported.reading` too
    print(question.sentence, [option.label for option in question.options])
imported = read_facts(data, "mothers.csv", imported.asked[0].options[1].choices)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Role = Literal["subject", "object", "alternatives", "relation"]
ROLES: tuple[Role, ...] = ("subject", "object", "alternatives", "relation")
QuestionKind = Literal["encoding", "delimiter", "header", "columns"]


@dataclass(frozen=True)
class ImportChoices:
    """How to read a file; None is found out, or asked.

    `encoding`: as Python names it, such as cp1252; `delimiter`: one sign; `first_row`: the row of the header, or of the
    first fact where there is none, from 1; `header`: whether that row is a header; `columns`: role → position from 1.
    """

    encoding: str | None = None
    delimiter: str | None = None
    first_row: int | None = None
    header: bool | None = None
    columns: Mapping[str, int] | None = None


NO_CHOICES = ImportChoices()


@dataclass(frozen=True)
class ImportOption:
    """One answer. `value` names it within its question; `choices` is what to read the file with when it is taken.

    `sample`: a few words of the file as this answer reads them, to judge it by. Options of a question of the kind
    `columns` are the columns: `value` is the position from 1, and the one who asks fills `ImportChoices.columns`.
    """

    label: str
    value: str
    choices: ImportChoices
    sample: str = ""


@dataclass(frozen=True)
class ImportQuestion:
    """What a person must choose or confirm. `guess`: the value of the option that was taken for now."""

    kind: QuestionKind
    sentence: str
    options: tuple[ImportOption, ...]
    guess: str


@dataclass
class Asking:
    """Collects questions while a file is read: `choices` are the person's, `taken` what is read with."""

    choices: ImportChoices
    taken: ImportChoices = field(init=False)
    asked: list[ImportQuestion] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taken = self.choices

    def take(self, **found: object) -> None:
        """Note what the file is read with."""
        self.taken = replace(self.taken, **found)  # type: ignore[arg-type]

    def ask(self, kind: QuestionKind, sentence: str, options: list[ImportOption], guess: str) -> None:
        """Put a question that the person has not answered yet."""
        self.asked.append(ImportQuestion(kind, sentence, tuple(options), guess))
