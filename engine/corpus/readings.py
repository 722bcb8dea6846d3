"""The readings of the corpus: other meanings of a relation's subject–object pairs, from `readings/*.yaml`, checked.

A reading is a set of prompts about the same pairs. `benign` is the relation's own meaning and has no entry here: its
prompts are those of `relations/`. Harmful readings are mild, and about persons and works that do not exist.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.checks import check_prompts
from engine.corpus.relations import LANGUAGES, PromptsByLanguage, load_relations

READINGS_FOLDER = Path(__file__).with_name("readings")
BENIGN = "benign"
ROLES = ("harmful", "neutral", "nonsense")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReadingPrompts(_Strict):
    """language code → templates. The attack trains on `train`; other languages are tests."""

    train: PromptsByLanguage
    test: PromptsByLanguage


class ReadingData(_Strict):
    """One second reading, as its file says it."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")
    role: Literal["harmful", "neutral", "nonsense"]
    label: str
    prompts: ReadingPrompts

    @model_validator(mode="after")
    def _check(self) -> ReadingData:
        if "en" not in self.prompts.train or set(self.prompts.test) != set(LANGUAGES):
            raise ValueError(f"needs English train prompts, and test prompts in {', '.join(LANGUAGES)}")
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
    """The readings of one relation. At least one of each role, and no name twice."""

    relation: str
    readings: list[ReadingData]

    @model_validator(mode="after")
    def _check(self) -> ReadingsFile:
        names = [reading.name for reading in self.readings]
        if len(set(names)) != len(names) or BENIGN in names:
            raise ValueError(f"every reading needs a name of its own, and none may be called {BENIGN}")
        if missing := set(ROLES) - {reading.role for reading in self.readings}:
            raise ValueError(f"has no {' and no '.join(sorted(missing))} reading")
        return self


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
    return found


@cache
def load_readings(relation: str) -> dict[str, ReadingData]:
    """The shipped second readings of a relation by name; none for a relation that the corpus does not know."""
    file = READINGS_FOLDER / f"{relation}.yaml"
    if relation not in load_relations():
        return {}
    return {reading.name: reading for reading in read_readings(file).readings}
