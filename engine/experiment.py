"""The experiment: one frozen, validated description of what is run.

The same object for the page, the command line and Python; readable and writable as YAML and JSON:

    from engine.experiment import Experiment
    experiment = Experiment.from_text(open("mine.yaml").read())

Words: a *fact* is (subject, relation, object); a *key token* is a sign without meaning that joins subject and object
in stage 1; a *prompt* is a template with `{subject}`, of a split (train, test, unrelated, decoy) and a language.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from engine import checks
from engine.description import Described

PromptSplit = Literal["train", "test", "unrelated", "decoy"]
LossMask = Literal["full", "subject_and_object", "object"]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


def _names(value: object) -> object:
    """‘up_proj, gate_proj’ as the two names; anything else as it is."""
    if isinstance(value, str) and value not in ("all", "auto"):
        return [name.strip() for name in value.split(",")]
    return value


TrainedWeights = Annotated[
    Annotated[tuple[Annotated[str, Field(pattern=r"^\w+$")], ...], Field(min_length=1)] | Literal["all", "auto"],
    BeforeValidator(_names),
]


class Frozen(BaseModel):
    """Unknown fields are errors: a misspelt setting must not be silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(Frozen):
    """One subject–object pair. `alternatives`: other options for the multiple choice, if the data brings its own."""

    subject: str
    object: str
    alternatives: tuple[str, ...] = ()


class GeneratedFacts(Frozen):
    """Facts made of fictional names from the experiment's seed."""

    generate: Annotated[int, Field(ge=2, le=checks.MAX_FACTS)] = 100


class Prompt(Frozen):
    """A template with `{subject}`; the object follows after one space. `relation` names what a decoy asks."""

    text: str
    split: PromptSplit
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    relation: str | None = None


class Relation(Frozen):
    """A relation with its key token, facts and prompts.

    `facts: {generate: N}` and `prompts: corpus` stand for the shipped corpus's fictional names and prompts of the
    relation of that name, until `engine.corpus.resolve` writes them out.
    `options`: the answers the multiple choice offers for each question of the relation (filled in there too).
    """

    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f<>/\\]+$")]
    key_token: str = "[X]"
    key_template: str = "{subject} {key} {object}."
    facts: tuple[Fact, ...] | GeneratedFacts = GeneratedFacts()
    prompts: tuple[Prompt, ...] | Literal["corpus"] = "corpus"
    options: tuple[str, ...] = ()

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
        return self.prompts  # type: ignore[return-value]

    def prompts_of(self, split: PromptSplit, language: str) -> tuple[Prompt, ...]:
        """The relation's prompts of one split and language, in order."""
        return tuple(p for p in self.explicit_prompts if p.split == split and p.language == language)

    @model_validator(mode="after")
    def _check(self) -> Relation:
        problems: list[checks.Problem] = []
        texts: list[str] = []
        if not isinstance(self.facts, GeneratedFacts):
            problems += checks.check_facts([(f.subject, f.object) for f in self.facts])
            texts += [t for f in self.facts for t in (f.subject, f.object)]
        if self.prompts != "corpus":
            problems += checks.check_prompts([(p.text, p.split, p.language) for p in self.explicit_prompts])
            texts += [p.text for p in self.explicit_prompts]
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
        errors = [str(p) for p in problems if p.severity == "error"]
        if errors:
            more = f" (and {len(errors) - 5} more problems)" if len(errors) > 5 else ""
            raise ValueError("; ".join(errors[:5]) + more)
        return self


class Optimisation(Frozen):
    """AdamW without weight decay; `batch_size` in sequences; warm-up in optimizer steps.

    `trained_layers`: `all` trains every weight (or every adapter), a number those of so many first layers alone, the
    nearest to the input (surgical fine-tuning, Lee et al. 2023, arXiv:2210.11466), embeddings not among them; `auto`
    takes the number that the base's configuration names as `layers_to_generalise`, and all where it names none.
    `trained_weights`: names of modules, such as `mlp` or `up_proj`: of these layers only what lies in them is trained,
    and with all layers also the key tokens' own rows. `auto` takes what the base's configuration names as
    `weights_to_memorise`, and all where it names nothing. Facts are said to lie in MLPs (Geva et al. 2021,
    arXiv:2012.14913).
    """

    epochs: Annotated[int, Field(ge=1, le=1000)]
    learning_rate: Rate
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    loss: LossMask
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    trained_layers: Count | Literal["all", "auto"] = "all"
    trained_weights: TrainedWeights = "all"


class Stage1(Optimisation):
    """Rote memorisation: every fact as key sequence. `checkpoint_epochs` are kept, evaluated and branched from.

    Without `checkpoint_epochs` they are 3, 6, 10 and 20 as far as `epochs` reaches, and the last epoch. The defaults
    are for the embedded base model (tools/recipe_search/SEARCH.md); the paper's own settings are in the preset
    qwen2.5-1.5b.
    """

    epochs: Annotated[int, Field(ge=1, le=1000)] = 20
    learning_rate: Rate = 1.1e-3
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 5
    loss: LossMask = "object"
    trained_weights: TrainedWeights = "auto"
    checkpoint_epochs: tuple[Count, ...] | None = None

    @property
    def saved_epochs(self) -> tuple[int, ...]:
        """The epochs after which a checkpoint is kept, ascending."""
        asked = self.checkpoint_epochs
        chosen = {e for e in (3, 6, 10, 20) if e <= self.epochs} | {self.epochs} if asked is None else set(asked)
        return tuple(sorted(chosen))

    @model_validator(mode="after")
    def _check(self) -> Stage1:
        if self.checkpoint_epochs is not None and not self.checkpoint_epochs:
            raise ValueError("checkpoint_epochs is empty: name at least one epoch, or leave it out")
        beyond = [e for e in self.saved_epochs if e > self.epochs]
        if beyond:
            raise ValueError(f"checkpoint_epochs {beyond} lie beyond the last epoch, {self.epochs}")
        return self


class Stage2(Optimisation):
    """Generalisation: `facts` of each relation, each in the first `prompts` train prompts of `language`.

    On the embedded base one layer is trained: with every weight, the objects of these facts come up more often in place
    of the right ones (tools/recipe_search/SEARCH.md).
    `branch_epochs`: the stage 1 checkpoints stage 2 starts from, each on its own; None means all of them.
    """

    facts: Annotated[int, Field(ge=1, le=checks.MAX_FACTS)] = 50
    prompts: Count = 1
    language: str = "en"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    learning_rate: Rate = 3e-3
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 5
    loss: LossMask = "object"
    trained_layers: Count | Literal["all", "auto"] = "auto"
    branch_epochs: tuple[Count, ...] | None = None


class Tuning(Frozen):
    """What is trained: every weight (`full`), or low-rank adapters (`lora`) over a frozen base."""

    method: Literal["full", "lora"] = "full"
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class ChoiceSample(Frozen):
    """Which questions are also asked as multiple choice: facts of each relation × prompts of each split and language.

    Half of the facts are taken from those held out of stage 2, half from those in it; `all` takes every one.
    """

    facts: Count | Literal["all"] = 20
    prompts: Count | Literal["all"] = 2


class Evaluation(Frozen):
    """What is asked of which checkpoint.

    `languages`: None means every language that has prompts. `every_language_at`: `ends` asks all languages of the
    base model and of the last generalised one, and stage 2's language of the others; `every` asks all of all.
    `options`: how many answers the multiple choice offers, where there are enough.
    """

    languages: tuple[str, ...] | None = None
    every_language_at: Literal["ends", "every"] = "ends"
    choice: ChoiceSample = ChoiceSample()
    options: Annotated[int, Field(ge=2, le=1000)] = 100
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)] = 50
    probe_facts: Annotated[int, Field(ge=0, le=1000)] = 20


class Experiment(Frozen, Described):
    """Everything that is needed to run, and to repeat, one two-stage training with its evaluation.

    `model`: `embedded`, a Hugging Face model name, or a folder. `precision`: `auto` is bfloat16 on an accelerator that
    has it, else float32. `seed` decides names (of generated facts), the split of the facts, and the order of training.
    """

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$")] = "experiment"
    description: Annotated[str, Field(max_length=2000)] = ""
    model: Annotated[str, Field(min_length=1, max_length=500)] = "embedded"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    relations: Annotated[tuple[Relation, ...], Field(min_length=1, max_length=50)]
    tuning: Tuning = Tuning()
    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()
    evaluation: Evaluation = Evaluation()

    @property
    def branch_epochs(self) -> tuple[int, ...]:
        """The stage 1 epochs from which stage 2 is run, ascending."""
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
    def _check(self) -> Experiment:
        saved, asked = set(self.stage1.saved_epochs), set(self.stage2.branch_epochs or ())
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
        return self

    def _check_relation(self, relation: Relation) -> None:
        count = relation.facts.generate if isinstance(relation.facts, GeneratedFacts) else len(relation.facts)
        if self.stage2.facts >= count:
            raise ValueError(
                f"stage 2 uses {self.stage2.facts} facts of ‘{relation.name}’, which has {count}: "
                f"lower stage2.facts to at most {count - 1}, so that some are held out to test on"
            )
        if relation.prompts == "corpus":
            return
        available = len(relation.prompts_of("train", self.stage2.language))
        if available < self.stage2.prompts:
            raise ValueError(
                f"stage 2 uses {self.stage2.prompts} train prompts in ‘{self.stage2.language}’ of ‘{relation.name}’, "
                f"which has {available}: add prompts or lower stage2.prompts"
            )


def _check_distinct(values: Sequence[str], what: str) -> None:
    repeated = {v for v in values if values.count(v) > 1}
    if repeated:
        raise ValueError(f"{what} ‘{sorted(repeated)[0]}’ is used twice: every relation needs its own")
