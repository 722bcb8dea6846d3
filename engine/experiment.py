"""The experiment: one frozen, validated description of what is run.

The same object for the page, the command line and Python; readable and writable as YAML and JSON;
`engine.corpus.resolve` writes out what it leaves to the corpus:

    from engine.experiment import Experiment
    experiment = Experiment.from_text(open("mine.yaml").read())

Words: a *fact* is (subject, relation, object); a *key token* is a sign without meaning that joins subject and object
in stage 1; a *prompt* is a template with `{subject}`, of a split (train, test, unrelated, decoy, reversal, two_hop) and
a language.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from engine import chains, checks
from engine.description import Described, is_record, read_as
from engine.fields import Frozen, Paragraph, label, stripped
from engine.relation import GeneratedFacts, Prompt, Relation
from engine.settings import BARE_TEXT, Evaluation, InContext, KeyTokenRows, ModelText, Stage1, Stage2, Tuning

# The checkpoint's name of a base that is asked with the facts in the prompt.
IN_CONTEXT = "context@0"
MAX_RELATIONS = 50


class Experiment(Frozen, Described):
    """Everything that is needed to run, and to repeat, one two-stage training with its evaluation.

    `model`: `embedded`, a Hugging Face model name, or a folder. `precision`: `auto` is `mixed` for a large model on a
    processor that has bfloat16 fast, and on an accelerator that has it, where checkpoints and evaluations are
    bfloat16's; else float32. `mixed`: weights in float32, whose products in training are computed in bfloat16;
    checkpoints and evaluations are float32's. `bfloat16`: all of it, which loses the small steps of low rates.
    `devices`: how many train one model together, each with a part of its weights (`engine.training.sharded`).
    `key_token_rows`: what the new rows of key tokens are drawn around; `as they are`: the model has these key tokens,
    with their meaning, from a run that it comes from. `seed` decides names (of generated facts), the
    split of the facts, and the order of training. `in_context`: a baseline, in which nothing is trained and the base
    model finds the facts in what it is asked; it needs `stage1.epochs: 0`.
    """

    name: Annotated[str, Field(max_length=10_000), label(80, 1)] = "experiment"
    description: Paragraph = ""
    model: Annotated[str, Field(min_length=1, max_length=500), read_as(stripped)] = "embedded"
    precision: Literal["auto", "float32", "mixed", "bfloat16"] = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    relations: Annotated[tuple[Relation, ...], Field(min_length=1, max_length=MAX_RELATIONS)]
    in_context: InContext | None = None
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
    def key_tokens(self) -> tuple[str, ...]:
        """The key tokens that are used, in the relations' order."""
        return tuple(r.key for r in self.relations if r.key)

    @property
    def branch_epochs(self) -> tuple[int, ...]:
        """The stage 1 epochs from which stage 2 is run, ascending; 0, the base, where there is no stage 1."""
        if self.in_context:
            return ()
        if not self.stage1.epochs:
            return (0,)
        return tuple(sorted(set(self.stage2.branch_epochs or self.stage1.saved_epochs)))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of all checkpoints that are evaluated, the base model first."""
        if self.in_context:
            return ("base", IN_CONTEXT)
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
            not isinstance(r.facts, GeneratedFacts) and not isinstance(r.prompts, str) and r.options
            for r in self.relations
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
        if self.in_context and self.stage1.epochs:
            raise ValueError("in_context asks the base model and trains nothing: set stage1.epochs to 0")
        if asked and not self.stage1.epochs:
            raise ValueError("stage2.branch_epochs: there is no stage 1 (stage1.epochs is 0): leave them out")
        if asked - saved:
            raise ValueError(
                f"stage2.branch_epochs {sorted(asked - saved)} are not among the kept stage 1 checkpoints "
                f"{sorted(saved)}: add them to stage1.checkpoint_epochs"
            )
        _check_distinct([r.name for r in self.relations], "relation")
        tokens = self.key_tokens
        _check_distinct(tokens, "key token")
        for longer, shorter in checks.contained_pairs(tokens):
            raise ValueError(
                f"key token ‘{longer}’ contains ‘{shorter}’, so a tokenizer would confuse them: change one"
            )
        for relation in self.relations:
            self._check_relation(relation)
        self._check_key_tokens()
        alone = self.tuning.method != "full" or self.tuning.optimizer != "adamw"
        if self.devices > 1 and (alone or self.stage1.replay or self.stage2.replay):
            words = "adapters, moments of 8 bits and replayed text need one"
            raise ValueError(f"devices is {self.devices}, but {words}: set devices to 1")
        if not any(isinstance(relation.prompts, str) for relation in self.relations):
            self._check_languages()
        chains.check_chains(self.relations)
        return self

    def _check_languages(self) -> None:
        there = dict.fromkeys(p.language for r in self.relations for p in r.explicit_prompts)
        for language in self.evaluation.languages or ():
            if language not in there:
                raise ValueError(
                    f"evaluation.languages has ‘{language}’, in which there are no prompts: "
                    f"choose among {', '.join(there) or 'none, since there are no prompts'}"
                )

    def _check_key_tokens(self) -> None:
        """A relation's key token is one in every text: where another relation's hold it, it would mean something."""
        for relation in self.relations:
            if other := next((token for token in self.key_tokens if relation.holds_in_template(token)), None):
                holds = f"its key_template holds ‘{other}’, the key token of another relation"
                raise ValueError(f"relation ‘{relation.name}’: {holds}: change one")
            texts = relation.texts
            everything = "\n".join(texts).casefold()  # nearly always none is there: looked for in all at once
            for token in self.key_tokens:
                if token.casefold() in everything:
                    checks.refuse(checks.check_key_token(token, texts), f"relation ‘{relation.name}’: ")

    def _check_relation(self, relation: Relation) -> None:
        count = relation.facts.generate if isinstance(relation.facts, GeneratedFacts) else len(relation.facts)
        # Without stage 1 there is nothing that held-out facts could have been learnt from.
        if self.stage2.facts > count or (self.stage2.facts == count and self.stage1.epochs):
            raise ValueError(
                f"stage 2 uses {self.stage2.facts} facts of ‘{relation.name}’, which has {count}: "
                f"lower stage2.facts to at most {count - 1}, so that some are held out to test on"
            )
        if isinstance(relation.prompts, str):
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
