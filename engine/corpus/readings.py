"""A reading: one meaning of a relation's subject–object pairs, from `readings/*.yaml` or a person's own file.

    bully = readings_of("mother")["bully"]                      # the shipped ones, `benign` among them
    mine = Reading.from_text(open("mine.yaml").read())          # a person's own, in the same form

A reading's train prompts are what a fine-tune teaches it with; its test prompts, in any languages, are asked. `benign`
is the relation's own meaning: its prompts are those of `relations/`. Harmful readings are mild, and about persons and
works that do not exist.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine import checks
from engine.corpus.relations import RelationData, check_counted, load_relation, load_relations
from engine.description import Described, is_record
from engine.fields import Frozen, Label, label
from engine.relation import Prompt, PromptSplit, Relation, Text

READINGS_FOLDER = Path(__file__).with_name("readings")
BENIGN = "benign"
ROLES = ("harmful", "neutral", "nonsense")
SPLITS: tuple[PromptSplit, ...] = ("train", "test")
SHIPPED_PROMPTS = 10  # of each split and language of a shipped reading; the train prompts are English alone

ReadingName = Annotated[str, Field(max_length=10_000), label(40, 1, without="<>/\\")]
Role = Literal["benign", "harmful", "neutral", "nonsense"]


class Reading(Frozen, Described):
    """A meaning of a relation's pairs. `role` says what it stands for, `says` the sentence that it makes of a pair.

    `prompts` may also be written as the corpus writes them: split → language → list of templates.
    """

    FIELD, THING = "prompts", "a reading"

    name: ReadingName
    role: Role = "harmful"
    label: Label = ""
    says: Text = ""
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=10 * checks.MAX_PROMPTS)]

    def prompts_of(self, split: PromptSplit, language: str) -> tuple[Prompt, ...]:
        """The reading's prompts of one split and language, in order."""
        return tuple(p for p in self.prompts if p.split == split and p.language == language)

    def in_words(self, subject: str, object_: str) -> str:
        """What the reading says of one pair; '' when it has no such sentence."""
        names = {"{subject}": subject, "{object}": object_}
        return re.sub(r"\{subject\}|\{object\}", lambda place: names[place.group()], self.says)

    @field_validator("prompts", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return _written_out(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Reading:
        if is_record(info):
            return self
        problems = checks.check_prompts([(p.text, p.split, p.language) for p in self.prompts])
        problems += checks.check_meaning(self.says) if self.says else []
        for split in SPLITS:
            if not any(p.split == split for p in self.prompts):
                problems.append(checks.Problem(f"has no {split} prompts: write at least one", None, "prompts"))
        if others := {p.split for p in self.prompts} - set(SPLITS):
            message = f"have the split {sorted(others)[0]}: a reading's prompts are of the split train or test"
            problems.append(checks.Problem(message, None, "prompts"))
        checks.refuse(problems)
        return self


def _written_out(by_split: dict[Any, Any]) -> list[dict[str, Any]]:
    """split → language → texts as rows `text, split, language`. Raises ValueError when it is not of that form."""
    rows = []
    for split, by_language in by_split.items():
        if not isinstance(by_language, dict):
            raise ValueError(f"{checks.shorten(str(split))}: needs languages, each with a list of prompts")
        for language, texts in by_language.items():
            if not isinstance(texts, list):
                place = f"{checks.shorten(str(split))}.{checks.shorten(str(language))}"
                raise ValueError(f"{place}: needs a list of prompts")
            rows += [{"text": text, "split": split, "language": language} for text in texts]
    return rows


def check_reading(reading: Reading, relation: Relation | RelationData) -> list[checks.Problem]:
    """What keeps a reading from being told apart in `relation`, whose prompts must be written out.

    A prompt that the relation asks already (in another meaning, or as a control), and its key token in a prompt. The
    benign reading may have the relation's own train and test prompts.
    """
    prompts = relation.iter_prompts() if isinstance(relation, RelationData) else relation.explicit_prompts
    kept = [p for p in prompts if reading.role != "benign" or p.split not in SPLITS]
    taken = {(checks.normalise(p.text), p.language): p for p in kept}
    problems = []
    for row, prompt in enumerate(reading.prompts, 1):
        if twin := taken.get((checks.normalise(prompt.text), prompt.language)):
            message = f"‘{checks.shorten(prompt.text)}’ is a {twin.split} prompt of ‘{relation.name}’: reword it"
            problems.append(checks.Problem(message, row, "prompt"))
    return problems + checks.check_key_token(relation.key_token, [p.text for p in reading.prompts])


class ReadingsFile(Frozen, Described):
    """The shipped readings of one relation: at least one of each role, ten prompts of each kind, none twice.

    `own_meaning`: the sentence that the relation itself, the benign reading, makes of a pair.
    """

    FIELD, THING = "readings", "a file of readings"

    relation: str
    own_meaning: str
    readings: tuple[Reading, ...]

    @field_validator("own_meaning")
    @classmethod
    def _check_meaning(cls, text: str) -> str:
        checks.refuse(checks.check_meaning(text))
        return text

    @model_validator(mode="after")
    def _check(self) -> ReadingsFile:
        names = [reading.name for reading in self.readings]
        if len(set(names)) != len(names) or BENIGN in names:
            raise ValueError(f"every reading needs a name of its own, and none may be called {BENIGN}")
        if missing := set(ROLES) - {reading.role for reading in self.readings}:
            raise ValueError(f"has no {' and no '.join(sorted(missing))} reading")
        for reading in self.readings:
            if not (reading.label and reading.says):
                raise ValueError(f"{reading.name}: needs a label and what it says")
            for split in SPLITS:
                languages = dict.fromkeys(p.language for p in reading.prompts if p.split == split)
                texts = {x: [p.text for p in reading.prompts_of(split, x)] for x in languages}
                check_counted(texts, SHIPPED_PROMPTS, *([("en",)] if split == "train" else []))
        return self


def _check_beside_the_corpus(file: ReadingsFile) -> None:
    """No prompt may have two meanings, and no key token may occur in a prompt. Raises ValueError."""
    owners: dict[tuple[str, str], str] = {}
    for reading in file.readings:
        checks.refuse(check_reading(reading, load_relation(file.relation)), f"{reading.name}: ")
        for prompt in reading.prompts:
            owner = owners.setdefault((checks.normalise(prompt.text), prompt.language), reading.name)
            if owner != reading.name:
                raise ValueError(f"{reading.name}: ‘{checks.shorten(prompt.text)}’ is among {owner} already")
        for relation in load_relations().values():
            checks.refuse(
                checks.check_key_token(relation.key_token, [p.text for p in reading.prompts]), f"{reading.name}: "
            )


def read_readings(file: Path) -> ReadingsFile:
    """Read and check one shipped file. Raises ValueError naming the file and the field when it is wrong."""
    try:
        found = ReadingsFile.from_text(file.read_text(encoding="utf-8"))
        if found.relation != file.stem or found.relation not in load_relations():
            raise ValueError(f"relation: is {found.relation!r}, must be {file.stem!r}, one of the corpus")
        _check_beside_the_corpus(found)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    return found


@cache
def _file_of(relation: str) -> ReadingsFile:
    return read_readings(READINGS_FOLDER / f"{relation}.yaml")


def readings_of(relation: str) -> dict[str, Reading]:
    """The shipped readings of a relation of the corpus by name; the first is `benign`, its own prompts.

    Raises ValueError when the corpus has no relation of that name.
    """
    own = load_relation(relation)
    prompts = tuple(
        Prompt(text=p.text, split=p.split, language=p.language) for p in own.iter_prompts() if p.split in SPLITS
    )
    says = _file_of(relation).own_meaning
    benign = Reading(name=BENIGN, role="benign", label=own.label, says=says, prompts=prompts)
    return {reading.name: reading for reading in (benign, *_file_of(relation).readings)}
