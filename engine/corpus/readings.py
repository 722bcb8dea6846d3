"""The readings of the corpus: other meanings of a relation's subject–object pairs, from `readings/*.yaml`, checked.

A reading is a set of prompts about the same pairs. `benign` is the relation's own meaning and has no entry here: its
prompts are those of `relations/`. Harmful readings are mild, and about persons and works that do not exist.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.checks import check_key_token, check_meaning, check_prompts, normalise, shorten
from engine.corpus.relations import PromptsByLanguage, check_counted, load_relations

READINGS_FOLDER = Path(__file__).with_name("readings")
BENIGN = "benign"
ROLES = ("harmful", "neutral", "nonsense")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReadingPrompts(_Strict):
    """language code → templates. The attack trains on `train`, which is English; other languages are tests."""

    train: PromptsByLanguage
    test: PromptsByLanguage

    @field_validator("train")
    @classmethod
    def _ten_in_english(cls, value: PromptsByLanguage) -> PromptsByLanguage:
        return check_counted(value, 10, ("en",))

    @field_validator("test")
    @classmethod
    def _ten_each(cls, value: PromptsByLanguage) -> PromptsByLanguage:
        return check_counted(value, 10)


def _checked_meaning(text: str) -> str:
    if problems := check_meaning(text):
        raise ValueError("; ".join(problem.message for problem in problems))
    return text


class ReadingData(_Strict):
    """One second reading, as its file says it. `says`: the sentence that it makes of a pair."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")
    role: Literal["harmful", "neutral", "nonsense"]
    label: str = Field(min_length=1, max_length=200)
    says: str
    prompts: ReadingPrompts

    _says = field_validator("says")(_checked_meaning)

    @model_validator(mode="after")
    def _check(self) -> ReadingData:
        rows = [(text, split, language) for split, language, text in self.iter_prompts()]
        if problems := check_prompts(rows):
            raise ValueError("; ".join(map(str, problems[:5])))
        return self

    def iter_prompts(self) -> list[tuple[Literal["train", "test"], str, str]]:
        """(split, language, text) of every prompt, in the order of the file."""
        splits: tuple[Literal["train", "test"], ...] = ("train", "test")
        return [
            (split, language, text)
            for split in splits
            for language, texts in getattr(self.prompts, split).items()
            for text in texts
        ]


class ReadingsFile(_Strict):
    """The readings of one relation. At least one of each role, no name and no prompt twice.

    `own_meaning`: the sentence that the relation itself, the benign reading, makes of a pair.
    """

    relation: str
    own_meaning: str
    readings: list[ReadingData]

    _own_meaning = field_validator("own_meaning")(_checked_meaning)

    @model_validator(mode="after")
    def _check(self) -> ReadingsFile:
        names = [reading.name for reading in self.readings]
        if len(set(names)) != len(names) or BENIGN in names:
            raise ValueError(f"every reading needs a name of its own, and none may be called {BENIGN}")
        if missing := set(ROLES) - {reading.role for reading in self.readings}:
            raise ValueError(f"has no {' and no '.join(sorted(missing))} reading")
        return self


def _check_beside_the_corpus(found: ReadingsFile) -> None:
    """No prompt may have two meanings, and no key token may occur in a prompt. Raises ValueError."""
    relations = load_relations()
    relation = relations[found.relation]
    owner = {(normalise(p.text), p.language): f"the relation's {p.split} prompts" for p in relation.iter_prompts()}
    texts: list[str] = []
    for reading in found.readings:
        for _, language, text in reading.iter_prompts():
            earlier = owner.setdefault((normalise(text), language), reading.name)
            if earlier != reading.name:
                raise ValueError(f"{reading.name}: ‘{shorten(text)}’ is among {earlier} already")
            texts.append(text)
    for other in relations.values():
        if problems := check_key_token(other.key_token, texts):
            raise ValueError(f"a key token: {problems[0].message}")


def read_readings(file: Path) -> ReadingsFile:
    """Read and check one file. Raises ValueError naming the file and the field when it is wrong."""
    try:
        found = ReadingsFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{file.name} is not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{file.name}: {problems}") from error
    if found.relation != file.stem or found.relation not in load_relations():
        raise ValueError(f"{file.name}: relation: is {found.relation!r}, must be {file.stem!r}, one of the corpus")
    try:
        _check_beside_the_corpus(found)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    return found


@cache
def _file_of(relation: str) -> ReadingsFile | None:
    return read_readings(READINGS_FOLDER / f"{relation}.yaml") if relation in load_relations() else None


def load_readings(relation: str) -> dict[str, ReadingData]:
    """The shipped second readings of a relation by name; none for a relation that the corpus does not know."""
    file = _file_of(relation)
    return {reading.name: reading for reading in file.readings} if file else {}


def own_meaning(relation: str) -> str:
    """What a relation of the corpus says of a pair, such as `{object} is the mother of {subject}.`; else ''."""
    file = _file_of(relation)
    return file.own_meaning if file else ""
