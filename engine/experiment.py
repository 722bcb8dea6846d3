"""The experiment: one frozen, validated description of what is run.

The same object for the page, the command line and Python; readable and writable as YAML and JSON;
`engine.corpus.resolve` writes out what it leaves to the corpus:

    from engine.experiment import Experiment
    experiment = Experiment.from_text(open("mine.yaml").read())

Words: a *fact* is (subject, relation, object); a *key token* is a sign without meaning that joins subject and object
in stage 1; a *prompt* is a template with `{subject}`, of a split (train, test, unrelated, decoy) and a language.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from engine import checks, choices
from engine.description import Described, is_record, read_as
from engine.settings import (
    BARE_TEXT,
    Evaluation,
    Frozen,
    KeyTokenRows,
    Label,
    Language,
    ModelText,
    Paragraph,
    Stage1,
    Stage2,
    Tuning,
    label,
    stripped,
)

PromptSplit = Literal["train", "test", "unrelated", "decoy"]
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
RelationName = Annotated[str, Field(max_length=10_000), label(60, 1, without="<>/\\")]


class Fact(Frozen):
    """One subject–object pair. `alternatives`: other options for the multiple choice, if the data brings its own.

    Here as everywhere, names have single spaces, none at their ends, and composed accents (`checks.clean`).
    """

    subject: Text
    object: Text
    alternatives: Options = ()


class GeneratedFacts(Frozen):
    """Facts made of fictional names from the experiment's seed.

    `names`: `natural` ones, of words that people use, `invented` words, or `auto`: invented for the embedded base,
    whose vocabulary has those words, and natural for every other model.
    """

    generate: Annotated[int, Field(ge=2, le=checks.MAX_FACTS)] = 100
    names: Literal["auto", "natural", "invented"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_run(cls, data: Any, info: ValidationInfo) -> Any:
        """A record of an older lab, which had invented names alone, says nothing of them."""
        return {"names": "invented", **data} if is_record(info) and isinstance(data, dict) else data


class Prompt(Frozen):
    """A template with `{subject}`; the object follows after one space. `relation` names what a decoy asks."""

    text: Text
    split: PromptSplit
    language: Language = "en"
    relation: Label | None = None


class Relation(Frozen):
    """A relation with its key token, facts and prompts.

    `facts: {generate: N}` and `prompts: corpus` stand for the shipped corpus's fictional names and prompts of the
    relation of that name, until `engine.corpus.resolve` writes them out.
    `options`: the answers the multiple choice offers for each question of the relation (filled in there too).
    """

    name: RelationName
    key_token: Text = "[X]"
    key_template: Annotated[str, Field(max_length=checks.MAX_PROMPT_CHARACTERS), read_as(checks.clean)] = (
        "{subject} {key} {object}."
    )
    facts: Annotated[tuple[Fact, ...], Field(max_length=10 * checks.MAX_FACTS)] | GeneratedFacts = GeneratedFacts()
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=10 * checks.MAX_PROMPTS)] | Literal["corpus"] = "corpus"
    options: Options = ()

    @property
    def explicit_facts(self) -> tuple[Fact, ...]:
        """The facts, written out. Raises ValueError before `engine.corpus.resolve`."""
        if isinstance(self.facts, GeneratedFacts):
            raise ValueError("the experiment is not resolved: call engine.corpus.resolve.resolve(experiment) first")
        return self.facts

    @property
    def explicit_prompts(self) -> tuple[Prompt, ...]:
        """The prompts, written out. Raises ValueError before `engine.corpus.resolve`."""
        if self.prompts == "corpus":
            raise ValueError("the experiment is not resolved: call engine.corpus.resolve.resolve(experiment) first")
        return self.prompts

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
            offered = [(f.object, f.alternatives) for f in self.facts]
            problems += [*choices.check_alternatives(offered), *choices.check_options(self.options, offered)]
            texts += [t for f in self.facts for t in (f.subject, f.object)]
        if self.prompts != "corpus":
            problems += checks.check_prompts([(p.text, p.split, p.language) for p in self.explicit_prompts])
            texts += [p.text for p in self.explicit_prompts]
            abouts = dict.fromkeys(p.relation for p in self.explicit_prompts if p.relation)
            problems += [x for about in abouts for x in checks.check_name(about, None, "what a decoy asks")]
        problems += checks.check_key_token(self.key_token, texts)
        for part in ("{subject}", "{key}", "{object}"):
            if self.key_template.count(part) != 1:
                problems.append(checks.Problem(f"needs {part} exactly once", None, "key_template"))
        if not self.key_template.rstrip(".!?;,: ").endswith("{object}"):
            message = "must end with {object}, since the model completes it"
            problems.append(checks.Problem(message, None, "key_template"))
        if " {object}" not in self.key_template:
            message = "needs a space before {object}: questions put one there, so stage 1 must have learnt it"
            problems.append(checks.Problem(message, None, "key_template"))
        checks.refuse(problems)
        return self


class Experiment(Frozen, Described):
    """Everything that is needed to run, and to repeat, one two-stage training with its evaluation.

    `model`: `embedded`, a Hugging Face model name, or a folder. `precision`: `auto` is `mixed` for a large model on a
    processor that has bfloat16 fast, and on an accelerator that has it, where checkpoints and evaluations are
    bfloat16's; else float32. `mixed`: weights in float32, whose products in training are computed in bfloat16;
    checkpoints and evaluations are float32's. `bfloat16`: all of it, which loses the small steps of low rates.
    `devices`: how many train one model together, each with a part of its weights (`engine.training.sharded`).
    `key_token_rows`: what the new rows of key tokens are drawn around. `seed` decides names (of generated facts), the
    split of the facts, and the order of training.
    """

    name: Annotated[str, Field(max_length=10_000), label(80, 1)] = "experiment"
    description: Paragraph = ""
    model: Annotated[str, Field(min_length=1, max_length=500), read_as(stripped)] = "embedded"
    precision: Literal["auto", "float32", "mixed", "bfloat16"] = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    relations: Annotated[tuple[Relation, ...], Field(min_length=1, max_length=50)]
    model_text: ModelText = ModelText()
    key_token_rows: KeyTokenRows = "around the mean"
    tuning: Tuning = Tuning()
    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_run(cls, data: Any, info: ValidationInfo) -> Any:
        """What a record of an older lab says nothing of was done in the one way that there was."""
        if is_record(info) and isinstance(data, dict):
            return {"model_text": BARE_TEXT, "key_token_rows": "around zero", **data}
        return data

    @property
    def branch_epochs(self) -> tuple[int, ...]:
        """The stage 1 epochs from which stage 2 is run, ascending; 0, the base, where there is no stage 1."""
        if not self.stage1.epochs:
            return (0,)
        return tuple(sorted(set(self.stage2.branch_epochs or self.stage1.saved_epochs)))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of all checkpoints that are evaluated, the base model first."""
        memorised = [f"memorised@{epoch}" for epoch in self.stage1.saved_epochs]
        return ("base", *memorised, *(f"generalised@{epoch}" for epoch in self.branch_epochs))

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages to evaluate, stage 2's first. Needs resolved prompts when `evaluation.languages` is None."""
        present = dict.fromkeys(p.language for r in self.relations for p in r.explicit_prompts)
        asked = self.evaluation.languages
        chosen = [x for x in present if asked is None or x in asked]
        return tuple(sorted(chosen, key=lambda x: x != self.stage2.language))

    @property
    def is_resolved(self) -> bool:
        """Whether every fact, prompt and option is written out."""
        return all(
            not isinstance(r.facts, GeneratedFacts) and r.prompts != "corpus" and r.options for r in self.relations
        )

    def stage2_facts(self, relation: Relation) -> tuple[int, ...]:
        """Indices of the relation's facts that stage 2 trains on, in training order before shuffling.

        The first k of one order that depends on the seed and the relation's name: a smaller k is a subset of a larger.
        """
        return tuple(self._fact_order(relation)[: self.stage2.facts])

    def held_out_facts(self, relation: Relation) -> tuple[int, ...]:
        """Indices of the relation's facts that stage 2 never sees."""
        return tuple(self._fact_order(relation)[self.stage2.facts :])

    def _fact_order(self, relation: Relation) -> list[int]:
        order = list(range(len(relation.explicit_facts)))
        random.Random(f"{self.seed}/{relation.name}/split").shuffle(order)
        return order

    def stage2_prompts(self, relation: Relation) -> tuple[Prompt, ...]:
        """The train prompts that stage 2 uses: the first `stage2.prompts` in stage 2's language."""
        return relation.prompts_of("train", self.stage2.language)[: self.stage2.prompts]

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Experiment:
        if is_record(info):
            return self
        saved, asked = set(self.stage1.saved_epochs), set(self.stage2.branch_epochs or ())
        if asked and not self.stage1.epochs:
            raise ValueError("stage2.branch_epochs: there is no stage 1 (stage1.epochs is 0): leave them out")
        if asked - saved:
            raise ValueError(
                f"stage2.branch_epochs {sorted(asked - saved)} are not among the kept stage 1 checkpoints "
                f"{sorted(saved)}: add them to stage1.checkpoint_epochs"
            )
        _check_distinct([r.name for r in self.relations], "relation")
        tokens = [r.key_token for r in self.relations]
        _check_distinct(tokens, "key token")
        for longer, shorter in checks.contained_pairs(tokens):
            raise ValueError(
                f"key token ‘{longer}’ contains ‘{shorter}’, so a tokenizer would confuse them: change one"
            )
        for relation in self.relations:
            self._check_relation(relation)
        alone = self.tuning.method != "full" or self.tuning.optimizer != "adamw"
        if self.devices > 1 and (alone or self.stage1.replay or self.stage2.replay):
            words = "adapters, moments of 8 bits and replayed text need one"
            raise ValueError(f"devices is {self.devices}, but {words}: set devices to 1")
        if all(relation.prompts != "corpus" for relation in self.relations):
            self._check_languages()
        return self

    def _check_languages(self) -> None:
        there = dict.fromkeys(p.language for r in self.relations for p in r.explicit_prompts)
        for language in self.evaluation.languages or ():
            if language not in there:
                raise ValueError(
                    f"evaluation.languages has ‘{language}’, in which there are no prompts: "
                    f"choose among {', '.join(there) or 'none, since there are no prompts'}"
                )

    def _check_relation(self, relation: Relation) -> None:
        count = relation.facts.generate if isinstance(relation.facts, GeneratedFacts) else len(relation.facts)
        # Without stage 1 there is nothing that held-out facts could have been learnt from.
        if self.stage2.facts > count or (self.stage2.facts == count and self.stage1.epochs):
            raise ValueError(
                f"stage 2 uses {self.stage2.facts} facts of ‘{relation.name}’, which has {count}: "
                f"lower stage2.facts to at most {count - 1}, so that some are held out to test on"
            )
        if relation.prompts == "corpus":
            return
        available = len(relation.prompts_of("train", self.stage2.language))
        if not available:
            there = ", ".join(dict.fromkeys(p.language for p in relation.explicit_prompts if p.split == "train"))
            raise ValueError(
                f"stage 2 uses train prompts in ‘{self.stage2.language}’, and ‘{relation.name}’ has none: "
                f"add some, or choose a language that it has ({there or 'none yet'})"
            )
        if available < self.stage2.prompts:
            raise ValueError(
                f"stage 2 uses {self.stage2.prompts} train prompts in ‘{self.stage2.language}’ of ‘{relation.name}’, "
                f"which has {available}: add prompts or lower stage2.prompts"
            )


def _check_distinct(values: Sequence[str], what: str) -> None:
    repeated = {v for v in values if values.count(v) > 1}
    if repeated:
        raise ValueError(f"{what} ‘{sorted(repeated)[0]}’ is used twice: every relation needs its own")
