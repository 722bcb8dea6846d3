"""What is asked on the Query page: a fact in every prompt of its relation, a free text, or all facts in one prompt.

Everything typed is checked and bounded here; a mistake is raised as `AskError`, a sentence for whoever typed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.shared.words import LANGUAGES, SPLITS, language_name, split_name
from engine.checks import MAX_NAME_CHARACTERS, shorten
from engine.evaluation.questions import PLACEHOLDER, fact_rows, key_prompt, prompt_rows
from engine.experiment import Experiment, Relation

MAX_TEXT_CHARACTERS = 4_000
MAX_NEW_TOKENS = 200
FREE = "free"
Question = dict[str, Any]


def storable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which a program can send but nothing can store."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


class AskError(ValueError):
    """What was asked cannot be asked; the text is a sentence for the person who asked."""

    def __init__(self, sentence: str) -> None:
        super().__init__(storable(sentence))


class Settings(BaseModel):
    """How the answers are decoded. Temperature 0 is greedy: always the most probable token."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = 50

    @field_validator("temperature", "top_p")
    @classmethod
    def _a_number(cls, value: float) -> float:
        if value != value:
            raise ValueError("is not a number")
        return value


NAMES = {"temperature": "The temperature", "top_p": "Top-p", "seed": "The seed", "max_tokens": "The number of tokens"}
BOUNDS = {
    "temperature": "0 (greedy) to 5",
    "top_p": "above 0, up to 1",
    "seed": "a whole number from 0",
    "max_tokens": f"1 to {MAX_NEW_TOKENS}",
}


def read_settings(values: dict[str, Any]) -> Settings:
    """Typed values as settings; those left empty are the defaults. Raises AskError."""
    given = {k: v for k, v in values.items() if k in Settings.model_fields and v not in (None, "")}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise AskError(f"{NAMES[field]} must be {BOUNDS[field]}, not “{shorten(str(given[field]))}”.") from error


def find_relation(experiment: Experiment, name: str | None) -> Relation:
    """The relation of that name; without a name, the only or first one. Raises AskError."""
    if not name:
        return experiment.relations[0]
    for relation in experiment.relations:
        if relation.name == name:
            return relation
    known = ", ".join(r.name for r in experiment.relations[:10])
    raise AskError(f"This run has no relation “{shorten(name)}”; it has {known}.")


def find_fact(experiment: Experiment, subject: str, relation: str | None = None) -> dict[str, Any] | None:
    """The fact about that subject, as `fact_rows` gives it (upper and lower case alike); None for an unknown one."""
    wanted = subject.strip().casefold()
    for row in fact_rows(experiment):
        if row["subject"].casefold() == wanted and relation in (None, "", row["relation"]):
            return row
    return None


def checked_subject(subject: str) -> str:
    """A typed subject on one line. Raises AskError."""
    text = " ".join(storable(subject).split())
    if not text:
        raise AskError("Choose a fact, or type a subject, to ask about.")
    if len(text) > MAX_NAME_CHARACTERS:
        raise AskError(f"This subject has {len(text):,} characters; a name may have {MAX_NAME_CHARACTERS}.")
    return text


def checked_text(text: str) -> str:
    """A typed prompt. Raises AskError."""
    if not text.strip():
        raise AskError("Type a prompt first.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise AskError(f"This prompt has {len(text):,} characters; {MAX_TEXT_CHARACTERS:,} are the most: shorten it.")
    return storable(text)


def fact_questions(
    experiment: Experiment,
    relation: Relation,
    subject: str,
    fact: dict[str, Any] | None,
    languages: Sequence[str] = (),
) -> list[Question]:
    """Every prompt of the relation about one subject, stage 2's language first; `fact`: what is known of it."""
    first = {language: i for i, language in enumerate([experiment.stage2.language, *LANGUAGES])}
    splits = {split: i for i, split in enumerate(SPLITS)}
    rows = [
        row
        for row in prompt_rows(experiment)
        if row["relation"] == relation.name and (not languages or row["split"] == "key" or row["language"] in languages)
    ]
    rows.sort(key=lambda r: (r["split"] != "key", first.get(r["language"], 99), r["language"], splits[r["split"]]))
    return [
        {
            "split": row["split"],
            "language": row["language"],
            "prompt": row["text"],
            "text": row["text"].replace(PLACEHOLDER, subject),
            "subject": subject,
            "object": fact["object"] if fact else None,
            "about": row["about"],
            "trained": fact["trained"] if fact else None,
        }
        for row in rows
    ]


def text_question(experiment: Experiment, text: str) -> Question:
    """A free text as it stands, judged by the fact whose subject it names (the longest one, if there are several)."""
    named = [row for row in fact_rows(experiment) if row["subject"] in text]
    keys = {r.name: r.key_token for r in experiment.relations}
    # Where two relations share a subject, the key token tells which of them is meant.
    fact = max(named, key=lambda row: (keys[row["relation"]] in text, len(row["subject"])), default=None)
    return {
        "split": FREE,
        "language": "",
        "prompt": text,
        "text": text,
        "subject": fact["subject"] if fact else "",
        "object": fact["object"] if fact else None,
        "about": None,
        "trained": fact["trained"] if fact else None,
        "relation": fact["relation"] if fact else "",
    }


def facts_questions(experiment: Experiment, relation: Relation, prompt: str) -> list[Question]:
    """One prompt about every fact of the relation, the held-out ones first. Raises AskError."""
    text = checked_text(" ".join(prompt.split()))
    if text.count(PLACEHOLDER) != 1:
        raise AskError("The prompt for all facts needs {subject} exactly once, where each fact's subject goes.")
    known = next((r for r in prompt_rows(experiment) if r["relation"] == relation.name and r["text"] == text), None)
    rows = sorted((r for r in fact_rows(experiment) if r["relation"] == relation.name), key=lambda r: r["trained"])
    return [
        {
            "split": known["split"] if known else FREE,
            "language": known["language"] if known else "",
            "prompt": text,
            "text": text.replace(PLACEHOLDER, row["subject"]),
            "subject": row["subject"],
            "object": row["object"],
            "about": known["about"] if known else None,
            "trained": row["trained"],
        }
        for row in rows
    ]


def prompts_to_choose(experiment: Experiment, relation: Relation) -> Iterable[tuple[str, str]]:
    """(text, what kind) of the relation's prompts, for asking all facts: the key token's, then stage 2's language's."""
    yield key_prompt(relation), split_name("key")
    rows = [r for r in prompt_rows(experiment) if r["relation"] == relation.name and r["split"] != "key"]
    for row in sorted(rows, key=lambda r: r["language"] != experiment.stage2.language):
        yield row["text"], f"{split_name(row['split'])}, {language_name(row['language'])}"
