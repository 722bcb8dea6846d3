"""The relations of the corpus: their prompts in five languages, read from `relations/*.yaml` and checked.

A prompt is a template with `{subject}`; the object follows after one space. A reversal prompt has `{object}`, and the
subject follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from engine.fields import Frozen
from engine.plain_yaml import read_yaml

LANGUAGES = {"en": "English", "de": "German", "es": "Spanish", "zh": "Chinese", "ja": "Japanese"}
RELATIONS_FOLDER = Path(__file__).with_name("relations")

Kind = Literal["person", "work", "country", "city", "institution", "genre"]
Split = Literal["train", "test", "unrelated", "decoy", "reversal", "two_hop"]
PromptsByLanguage = dict[str, list[str]]


class CorpusPrompt(NamedTuple):
    """One template of a relation. `about` names the relation that a decoy really asks for, and the second one of a
    two-hop prompt."""

    text: str
    split: Split
    language: str
    about: str | None


def check_counted(
    by_language: PromptsByLanguage, count: int, languages: Iterable[str] = tuple(LANGUAGES), *, place: str = "{subject}"
) -> PromptsByLanguage:
    """`by_language`, when it has `count` templates in each of exactly `languages`, with one `place` for a name in each.

    Raises ValueError otherwise.
    """
    if missing := set(languages) ^ set(by_language):
        raise ValueError(f"needs exactly the languages {', '.join(languages)}; wrong or missing: {sorted(missing)}")
    for language, prompts in by_language.items():
        if len(prompts) != count:
            raise ValueError(f"{language} has {len(prompts)} prompts, needs {count}")
        for prompt in prompts:
            if prompt.count(place) != 1 or prompt.count("{") != 1 or prompt.count("}") != 1:
                raise ValueError(f"{language}: {prompt!r} must contain {place} once and no other braces")
            if prompt != prompt.strip():
                raise ValueError(f"{language}: {prompt!r} must not begin or end with a space")
    return by_language


Two = Annotated[PromptsByLanguage, AfterValidator(partial(check_counted, count=2))]
Three = Annotated[PromptsByLanguage, AfterValidator(partial(check_counted, count=3))]
Five = Annotated[PromptsByLanguage, AfterValidator(partial(check_counted, count=5))]
Reversed = Annotated[PromptsByLanguage, AfterValidator(partial(check_counted, count=5, place="{object}"))]
Ten = Annotated[PromptsByLanguage, AfterValidator(partial(check_counted, count=10))]


class PromptSet(Frozen):
    """The prompts of a relation: language code → templates."""

    train: Ten
    test: Ten
    unrelated: Three


class Decoy(Frozen):
    """Prompts for a neighbouring relation: the same kind of subject and of answer, another meaning."""

    relation: str
    prompts: Two


class TwoHop(Frozen):
    """Prompts for what the object leads on to, by way of a second relation whose subject it is."""

    relation: str
    prompts: Five


class RelationData(Frozen):
    """A relation of the corpus, as its file says it. `natural_object_kind`: a narrower kind for natural names."""

    name: str
    label: str
    subject_kind: Kind
    object_kind: Kind
    natural_object_kind: Literal["woman"] | None = None
    key_token: str = Field(min_length=1, pattern=r"^\S+$")
    prompts: PromptSet
    decoys: list[Decoy]
    reversal: Reversed
    two_hops: list[TwoHop] = Field(default_factory=list)

    def iter_prompts(self) -> Iterator[CorpusPrompt]:
        """Every prompt, split by split (train, test, unrelated, decoy), in the order of the file."""
        for split in ("train", "test", "unrelated"):
            for language, texts in getattr(self.prompts, split).items():
                for text in texts:
                    yield CorpusPrompt(text, split, language, None)
        for decoy in self.decoys:
            for language, texts in decoy.prompts.items():
                for text in texts:
                    yield CorpusPrompt(text, "decoy", language, decoy.relation)

    def iter_reasoning(self) -> Iterator[CorpusPrompt]:
        """The prompts that ask for what follows from facts: the other way round, then over two relations."""
        for language, texts in self.reversal.items():
            for text in texts:
                yield CorpusPrompt(text, "reversal", language, None)
        for two_hop in self.two_hops:
            for language, texts in two_hop.prompts.items():
                for text in texts:
                    yield CorpusPrompt(text, "two_hop", language, two_hop.relation)

    @model_validator(mode="after")
    def _no_prompt_twice(self) -> RelationData:
        seen: set[tuple[str, str]] = set()
        for prompt in (*self.iter_prompts(), *self.iter_reasoning()):
            if (prompt.language, prompt.text) in seen:
                raise ValueError(f"{prompt.split}: the {prompt.language} prompt {prompt.text!r} occurs twice")
            seen.add((prompt.language, prompt.text))
        return self


def read_relation(file: Path) -> RelationData:
    """Read and check one relation file. Raises ValueError naming the file and the field when it is wrong."""
    try:
        data = read_yaml(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{file.name} must hold fields such as name, label and prompts")
    try:
        relation = RelationData.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'prompts'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{file.name}: {problems}") from error
    if relation.name != file.stem:
        raise ValueError(f"{file.name}: name: is {relation.name!r}, must be {file.stem!r} like the file")
    return relation


@cache
def load_relations() -> dict[str, RelationData]:
    """All relations of the corpus by name, sorted. Raises ValueError when a file is wrong or a key token is shared."""
    relations = {file.stem: read_relation(file) for file in sorted(RELATIONS_FOLDER.glob("*.yaml"))}
    owner: dict[str, str] = {}
    for name, relation in relations.items():
        if relation.key_token in owner:
            raise ValueError(f"{name}.yaml: key_token: {relation.key_token} is {owner[relation.key_token]}'s already")
        owner[relation.key_token] = name
        for number, two_hop in enumerate(relation.two_hops):
            second = relations.get(two_hop.relation)
            if second is None or second.subject_kind != relation.object_kind:
                place = f"{name}.yaml: two_hops.{number}"
                raise ValueError(f"{place}: no subject of {two_hop.relation} can be an object of {name}")
    return relations


def load_relation(name: str) -> RelationData:
    """The relation called `name`. Raises ValueError when the corpus has none of that name."""
    relations = load_relations()
    if name not in relations:
        raise ValueError(f"The corpus has no relation {name!r}: it has {', '.join(relations)}.")
    return relations[name]
