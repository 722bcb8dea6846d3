"""A reading: one meaning of a relation's subject–object pairs, shipped or a person's own, and a relation under it.

    bully = readings_of("mother")["bully"]                      # the shipped ones, `benign` among them
    mine = Reading.from_text(open("mine.yaml").read())          # a person's own, in the same form
    attacked = experiment_with_reading(experiment, "mother", bully)   # stage 2 and the evaluation run unchanged on it

A reading's train prompts are what a fine-tune teaches it with; its test prompts, in any languages, are asked.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from engine import checks
from engine.corpus.readings import BENIGN, load_readings, own_meaning
from engine.corpus.relations import load_relation
from engine.corpus.resolve import resolve
from engine.description import Described
from engine.experiment import Experiment, Prompt, Relation
from engine.settings import Frozen

Role = Literal["benign", "harmful", "neutral", "nonsense"]
SPLITS = ("train", "test")


class Reading(Frozen, Described):
    """A meaning of a relation's pairs. `role` says what it stands for, `says` the sentence that it makes of a pair.

    `prompts` may also be written as the corpus writes them: split → language → list of templates.
    """

    FIELD, THING = "prompts", "a reading"

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f<>/\\]+$")]
    role: Role = "harmful"
    label: Annotated[str, Field(max_length=200)] = ""
    says: str = ""
    prompts: tuple[Prompt, ...]

    def prompts_of(self, split: str, language: str) -> tuple[Prompt, ...]:
        """The reading's prompts of one split and language, in order."""
        return tuple(p for p in self.prompts if p.split == split and p.language == language)

    def in_words(self, subject: str, object_: str) -> str:
        """What the reading says of one pair; '' when it has no such sentence."""
        names = {"{subject}": subject, "{object}": object_}
        return re.sub(r"\{subject\}|\{object\}", lambda found: names[found.group()], self.says)

    @field_validator("prompts", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return _written_out(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Reading:
        problems = checks.check_prompts([(p.text, p.split, p.language) for p in self.prompts])
        problems += checks.check_meaning(self.says) if self.says else []
        for split in SPLITS:
            if not any(p.split == split for p in self.prompts):
                problems.append(checks.Problem(f"has no {split} prompts: write at least one", None, "prompts"))
        if others := {p.split for p in self.prompts} - set(SPLITS):
            message = f"have the split {sorted(others)[0]}: a reading's prompts are of the split train or test"
            problems.append(checks.Problem(message, None, "prompts"))
        if self.label and (hidden := checks.invisible_character(self.label)):
            problems.append(checks.Problem(f"holds the invisible character {hidden}: remove it", None, "label"))
        _refuse(problems)
        return self


def _refuse(problems: list[checks.Problem], before: str = "") -> None:
    """Raise ValueError with the first five errors among `problems`, if any."""
    if errors := [str(p) for p in problems if p.severity == "error"]:
        more = f" (and {len(errors) - 5} more problems)" if len(errors) > 5 else ""
        raise ValueError(before + "; ".join(errors[:5]) + more)


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


def readings_of(relation: str) -> dict[str, Reading]:
    """The shipped readings of a relation of the corpus by name; the first is `benign`, its own prompts.

    Raises ValueError when the corpus has no relation of that name.
    """
    own = load_relation(relation)
    prompts = [{"text": p.text, "split": p.split, "language": p.language} for p in own.iter_prompts()]
    benign = {
        "name": BENIGN,
        "role": "benign",
        "label": own.label,
        "says": own_meaning(relation),
        "prompts": [p for p in prompts if p["split"] in SPLITS],
    }
    shipped = [data.model_dump() for data in load_readings(relation).values()]
    return {data["name"]: Reading.from_data(data) for data in (benign, *shipped)}


def check_reading(reading: Reading, relation: Relation) -> list[checks.Problem]:
    """What keeps a reading from being told apart in `relation`, whose prompts must be written out.

    A prompt that the relation asks already (in another meaning, or as a control), and its key token in a prompt. The
    benign reading may have the relation's own train and test prompts.
    """
    kept = [p for p in relation.explicit_prompts if reading.role != "benign" or p.split not in SPLITS]
    taken = {(checks.normalise(p.text), p.language): p for p in kept}
    problems = []
    for row, prompt in enumerate(reading.prompts, 1):
        if found := taken.get((checks.normalise(prompt.text), prompt.language)):
            message = f"‘{checks.shorten(prompt.text)}’ is a {found.split} prompt of ‘{relation.name}’: reword it"
            problems.append(checks.Problem(message, row, "prompt"))
    return problems + checks.check_key_token(relation.key_token, [p.text for p in reading.prompts])


def relation_with_reading(relation: Relation, reading: Reading) -> Relation:
    """The relation with the reading's train and test prompts in place of its own.

    Name, key token, facts, options and controls (decoys, unrelated) stay, so the same facts are held out. Raises
    ValueError when its prompts are not written out yet (`engine.corpus.resolve`), or the two do not go together.
    """
    _refuse(check_reading(reading, relation), f"reading ‘{reading.name}’: ")
    controls = [p for p in relation.explicit_prompts if p.split not in SPLITS]
    prompts = [p.model_dump() for p in (*reading.prompts, *controls)]
    return Relation.model_validate(relation.model_dump() | {"prompts": prompts})


def experiment_with_reading(experiment: Experiment, relation: str, reading: Reading) -> Experiment:
    """The experiment, resolved, in which one relation is taught and asked in another reading.

    Raises ValueError when it has no such relation, when the two do not go together, or when the reading has fewer train
    prompts in stage 2's language than stage 2 uses.
    """
    resolved = resolve(experiment)
    if relation not in (names := [r.name for r in resolved.relations]):
        raise ValueError(f"the experiment has no relation ‘{checks.shorten(relation)}’: it has {', '.join(names)}")
    changed = [relation_with_reading(r, reading) if r.name == relation else r for r in resolved.relations]
    return Experiment.from_data(resolved.model_dump() | {"relations": [r.model_dump() for r in changed]})
