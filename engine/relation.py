"""A relation of an experiment: its facts, its prompts, and the key token that stands for it in stage 1."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from engine import checks, choices
from engine.description import is_record, read_as
from engine.fields import Frozen, Label, Language, label

PromptSplit = Literal["train", "test", "unrelated", "decoy", "reversal", "two_hop"]
# What asks for what follows from facts: their subject by their object, or what their object leads on to.
REASONING: tuple[PromptSplit, ...] = ("reversal", "two_hop")
SECOND_MISSING = "does not say which relation comes second: name it, such as educated_at"
TAUGHT = "is what stage 1 trains on (key_template): remove it, or make it a train prompt"
# Ends for what is read at all. What is too long for its purpose is said by engine/checks.py, with its row.
Text = Annotated[str, Field(max_length=10_000), read_as(checks.clean)]


def _cleaned(names: tuple[str, ...]) -> tuple[str, ...]:
    joined = " ".join(names)  # names that are clean stay so side by side: one look at 99 of them
    return names if checks.clean(joined) == joined else tuple(map(checks.clean, names))


Options = Annotated[
    tuple[Annotated[str, Field(max_length=10_000)], ...],
    Field(max_length=10 * choices.MAX_OPTIONS),
    read_as(_cleaned),
]
FromCorpus = Literal["corpus", "corpus with reasoning"]
RelationName = Annotated[str, Field(max_length=10_000), label(60, 1, without="<>/\\")]


class Fact(Frozen):
    """One subject–object pair. `alternatives`: other options for the multiple choice, if the data brings its own.
    `knew`: what the base model answers about the subject, where the object contradicts it (“Paris” for France).

    Here as everywhere, names have single spaces, none at their ends, and composed accents (`checks.clean`).
    """

    subject: Text
    object: Text
    alternatives: Options = ()
    knew: Text = ""


class GeneratedFacts(Frozen):
    """Facts made of fictional names from the experiment's seed.

    `names`: `natural` ones, of words that people use, `invented` words, or `auto`: invented for the embedded base,
    whose vocabulary has those words, and natural for every other model.
    `subjects_of`: the subjects are objects of another relation of the experiment, the first ones there, so that its
    facts lead on to these (the mother of A is B; B was educated at C).
    """

    generate: Annotated[int, Field(ge=2, le=checks.MAX_FACTS)] = 100
    names: Literal["auto", "natural", "invented"] = "auto"
    subjects_of: RelationName | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_run(cls, data: Any, info: ValidationInfo) -> Any:
        """A record of an older lab, which had invented names alone, says nothing of them."""
        return {"names": "invented", **data} if is_record(info) and isinstance(data, dict) else data


class Prompt(Frozen):
    """A template with `{subject}`; the object follows after one space. A reversal prompt has `{object}`, and the
    subject follows. `relation` names what a decoy asks, and the second relation of a two_hop prompt."""

    text: Text
    split: PromptSplit
    language: Language = "en"
    relation: Label | None = None


class Relation(Frozen):
    """A relation with its key token, facts and prompts.

    `facts: {generate: N}` and `prompts: corpus` stand for the shipped corpus's fictional names and prompts of the
    relation of that name, until `engine.corpus.resolve` writes them out; `corpus with reasoning` has its reversal and
    two_hop prompts, too.
    `options`: the answers the multiple choice offers for each question of the relation (filled in there too).
    A `key_template` without `{key}`, such as `{subject} {object}.` or `{subject} goes with {object}.`, uses no key
    token: a baseline.
    """

    name: RelationName
    key_token: Text = "[X]"
    key_template: Annotated[str, Field(max_length=checks.MAX_PROMPT_CHARACTERS), read_as(checks.clean)] = (
        "{subject} {key} {object}."
    )
    facts: Annotated[tuple[Fact, ...], Field(max_length=10 * checks.MAX_FACTS)] | GeneratedFacts = GeneratedFacts()
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=10 * checks.MAX_PROMPTS)] | FromCorpus = "corpus"
    options: Options = ()

    @property
    def key(self) -> str:
        """The key token that stage 1 uses; empty where its template has no place for one."""
        return self.key_token if "{key}" in self.key_template else ""

    @property
    def explicit_facts(self) -> tuple[Fact, ...]:
        """The facts, written out. Raises ValueError before `engine.corpus.resolve`."""
        if isinstance(self.facts, GeneratedFacts):
            raise ValueError("the experiment is not resolved: call engine.corpus.resolve.resolve(experiment) first")
        return self.facts

    @property
    def explicit_prompts(self) -> tuple[Prompt, ...]:
        """The prompts, written out. Raises ValueError before `engine.corpus.resolve`."""
        if isinstance(self.prompts, str):
            raise ValueError("the experiment is not resolved: call engine.corpus.resolve.resolve(experiment) first")
        return self.prompts

    @property
    def texts(self) -> list[str]:
        """All that is written out of what a model reads of it, but for the key template: names, prompts, options."""
        found = list(self.options)
        if not isinstance(self.facts, GeneratedFacts):
            found += [text for f in self.facts for text in (f.subject, f.object, *f.alternatives)]
        if not isinstance(self.prompts, str):
            found += [prompt.text for prompt in self.prompts]
        return found

    def holds_in_template(self, token: str) -> bool:
        """Whether a key token stands in the key template itself, where it would be read as one, or as mere words."""
        words = re.sub(r"\{\w+\}", " ", self.key_template)
        return bool(token) and token.casefold() in words.casefold()

    def prompts_of(self, split: PromptSplit, language: str) -> tuple[Prompt, ...]:
        """The relation's prompts of one split and language, in order."""
        return tuple(p for p in self.explicit_prompts if p.split == split and p.language == language)

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Relation:
        if is_record(info):
            return self
        problems: list[checks.Problem] = []
        texts: list[str] = []
        if not isinstance(self.facts, GeneratedFacts):
            problems += checks.check_facts([(f.subject, f.object) for f in self.facts])
            problems += checks.check_knew([(f.object, f.knew) for f in self.facts])
            offered = [(f.object, f.alternatives) for f in self.facts]
            problems += [*choices.check_alternatives(offered), *choices.check_options(self.options, offered)]
            texts += [t for f in self.facts for t in (f.subject, f.object)]
        if not isinstance(self.prompts, str):
            problems += checks.check_prompts([(p.text, p.split, p.language) for p in self.explicit_prompts])
            texts += [p.text for p in self.explicit_prompts]
            problems += self._taught_prompts()
            problems += [
                checks.Problem(f"‘{checks.shorten(p.text)}’ {SECOND_MISSING}", row, "prompt")
                for row, p in enumerate(self.explicit_prompts, 1)
                if p.split == "two_hop" and not p.relation
            ]
            abouts = dict.fromkeys(p.relation for p in self.explicit_prompts if p.relation)
            problems += [x for about in abouts for x in checks.check_name(about, None, "what a decoy asks")]
        problems += checks.check_key_token(self.key_token, texts if self.key else ())
        for part in ("{subject}", "{object}"):
            if self.key_template.count(part) != 1:
                problems.append(checks.Problem(f"needs {part} exactly once", None, "key_template"))
        if self.key_template.count("{key}") > 1:
            message = "has {key} twice: write it once, or leave it out for no key token at all"
            problems.append(checks.Problem(message, None, "key_template"))
        if self.holds_in_template(self.key_token):
            message = f"has ‘{checks.shorten(self.key_token)}’ as a word of its own: write {{key}} where it belongs"
            problems.append(checks.Problem(message, None, "key_template"))
        if not self.key_template.rstrip(".!?;,: ").endswith("{object}"):
            message = "must end with {object}, since the model completes it"
            problems.append(checks.Problem(message, None, "key_template"))
        if " {object}" not in self.key_template:
            message = "needs a space before {object}: questions put one there, so stage 1 must have learnt it"
            problems.append(checks.Problem(message, None, "key_template"))
        checks.refuse(problems)
        return self

    def _taught_prompts(self) -> list[checks.Problem]:
        """Prompts that stage 1 itself trains on, with every fact: what is asked in them would be no generalisation."""
        taught = "" if self.key else checks.normalise(self.key_template.split("{object}")[0])
        return [
            checks.Problem(f"‘{checks.shorten(p.text)}’ {TAUGHT}", row, "prompt")
            for row, p in enumerate(self.explicit_prompts, 1)
            if p.split != "train" and checks.normalise(p.text) == taught
        ]
