"""The attack experiment: one frozen description of a grid of fine-tunes that give memorised facts a second reading.

    attack = AttackExperiment.from_text(open("mine.yaml").read())
    resolved = resolve_attack(attack, base)     # readings written out; `base`: the resolved Experiment it attacks
    for cell in resolved.cells(): …

The facts are one relation's. A *pool* of them, those that the base run's stage 2 saw first, is what attacks may train
on; everything is measured on the others, which neither stage 2 nor any attack has put into words.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from engine import checks
from engine.corpus.readings import BENIGN, Reading
from engine.description import Described, is_record, read_as
from engine.experiment import Experiment
from engine.fields import Count, Frozen, Label, Paragraph, Rate, label
from engine.relation import Relation
from engine.settings import Tuning

Control = Literal["attack", "no_stage1", "neutral", "nonsense"]
Start = Literal["base", "memorised", "generalised"]
Method = Literal["full", "lora"]
NO_DEFENCE = "none"
MAX_CELLS = 5_000
Epochs = Annotated[int, Field(ge=1, le=1000)]
GRID = Field(min_length=1, max_length=MAX_CELLS)
Name = Annotated[str, Field(max_length=200)]
LEAST_HELD_OUT = 5


class Cell(Frozen):
    """One fine-tune and its measuring. attack_facts 0: nothing is trained, the start, as a defence left it, is asked.

    `kind` audit: no attack at all, but what an audit before release finds in the start and in its training data.
    """

    kind: Literal["attack", "audit"] = "attack"
    control: Control = "attack"
    reading: Name
    start: Start = "generalised"
    defence: Name = NO_DEFENCE
    attack_facts: Annotated[int, Field(ge=0, le=checks.MAX_FACTS)]
    prompts: Count
    epochs: Epochs
    learning_rate: Rate
    method: Method = "full"
    seed: Annotated[int, Field(ge=0, lt=2**31)]


def _as_described(data: dict[str, Any]) -> dict[str, Any]:
    """The description of the run that is made for an attack, checked, with what it says and no more."""
    return Experiment.from_data(data, notes=[]).model_dump(mode="json", exclude_unset=True)


class AttackExperiment(Frozen, Described):
    """A grid of attacks on one run's checkpoint, or on runs of a preset made for it, one for each seed.

    max_new_tokens: how far answers are decoded; an object named later than that is a miss.
    run: an existing run's id; or experiment: a preset's name or a description. relation: None is the first one.
    start, epoch: the checkpoint; epoch None is the last. reading: the harmful one, shipped or written out; None is the
    first shipped. controls' readings are the shipped ones, or those of that role in `readings`.
    facts, prompts, epochs, learning_rates, methods, seeds: the grid; every defence is attacked over all of it. The
    defaults for epochs and rate were chosen on seed 1000 of `quick`, where they open the harmful reading most at the
    least loss of the benign one; `prompts` takes as many train prompts as the reading has, up to that number.
    trained_layers: what an attack trains, as in engine/experiment.py.
    replay: `as stage 2`: the attacker takes along what the run's stage 2 replayed, as many texts of it, so that answers
    to other questions stay as they were; where that had a leash, it is to the model before the attack.
    ask: the most prompts asked of each split and language; ask_facts: the most held-out facts asked.
    keep: whose checkpoints are kept to be asked later: those of the first seed, of these alone the attacks with most
    facts and no defence (`largest`), all, or none.
    """

    FIELD, THING = "experiment", "an attack"

    name: Annotated[str, Field(max_length=10_000), label(80, 1)] = "attack"
    description: Paragraph = ""
    run: Annotated[str, Field(pattern=r"^[0-9a-zA-Z]{1,40}$", max_length=40)] | None = None
    experiment: Label | Annotated[dict[str, Any], read_as(_as_described)] = "quick"
    relation: Label | None = None
    start: Literal["memorised", "generalised"] = "generalised"
    epoch: Count | None = None
    reading: Label | None = None
    readings: Annotated[tuple[Reading, ...], Field(max_length=100)] = ()
    controls: Annotated[tuple[Literal["no_stage1", "neutral", "nonsense"], ...], Field(max_length=3)] = (
        "no_stage1", "neutral", "nonsense",
    )  # fmt: skip
    defences: Annotated[tuple[Label, ...], Field(max_length=100)] = ()
    facts: Annotated[tuple[Annotated[int, Field(ge=0, le=checks.MAX_FACTS)], ...], GRID] = (
        0, 1, 5, 10, 25, 50,
    )  # fmt: skip
    prompts: Annotated[tuple[Count, ...], GRID] = (10,)
    epochs: Annotated[tuple[Epochs, ...], GRID] = (2,)
    learning_rates: Annotated[tuple[Rate, ...], GRID] = (5e-4,)
    methods: Annotated[tuple[Method, ...], GRID] = ("full",)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], GRID] = (0, 1, 2)
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 5
    trained_layers: Count | Literal["all", "auto"] = "auto"
    replay: Literal["none", "as stage 2"] = "none"
    lora: Tuning = Tuning(method="lora")
    audit: bool = False
    ask: Count = 3
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)] = 16
    ask_facts: Annotated[int, Field(ge=LEAST_HELD_OUT, le=1000)] = 50
    keep: Literal["first_seed", "largest", "all", "none"] = "first_seed"

    def relation_of(self, base: Experiment) -> Relation:
        """The relation whose facts are attacked. Raises ValueError when `base` has none of that name."""
        for relation in base.relations:
            if self.relation in (None, relation.name):
                return relation
        there = ", ".join(r.name for r in base.relations)
        raise ValueError(f"relation: the run has no relation ‘{self.relation}’: choose one of {there}")

    def start_epoch(self, base: Experiment) -> int:
        """The stage 1 epoch of the checkpoint that is attacked. Raises ValueError when the run keeps no such one."""
        kept = base.branch_epochs if self.start == "generalised" else base.stage1.saved_epochs
        if not kept:
            raise ValueError(f"start: the run trains no {self.start} checkpoint: choose another start, or another run")
        if self.epoch not in (None, *kept):
            raise ValueError(f"epoch: the run keeps no {self.start}@{self.epoch}: choose one of {kept}")
        return self.epoch or kept[-1]

    def reading_named(self, name: str) -> Reading:
        """One of the written-out readings. Raises KeyError."""
        return {reading.name: reading for reading in self.readings}[name]

    @property
    def harmful(self) -> Reading:
        """The reading that attacks teach, once resolved."""
        return self.reading_named(self.reading or "")

    def pool_of(self, base: Experiment) -> tuple[int, ...]:
        """Indices of the facts that attacks may train on: stage 2's, and more only where the grid needs them."""
        return self._order(base)[: max(base.stage2.facts, *self.facts)]

    def held_out_of(self, base: Experiment) -> tuple[int, ...]:
        """Indices of the facts that neither stage 2 nor any cell has trained in words."""
        return self._order(base)[len(self.pool_of(base)) :][: self.ask_facts]

    def keeps(self, cell: Cell) -> bool:
        """Whether the cell's checkpoint is kept, to be asked later."""
        if self.keep in ("all", "none"):
            return self.keep == "all"
        largest = cell.attack_facts == max(self.facts) and cell.defence == NO_DEFENCE
        return cell.seed == self.seeds[0] and (self.keep == "first_seed" or largest)

    def _order(self, base: Experiment) -> tuple[int, ...]:
        relation = self.relation_of(base)
        return (*base.stage2_facts(relation), *base.held_out_facts(relation))

    def cells(self) -> Iterator[Cell]:
        """Every cell, the story first: by seed the attack and its controls, then each defence. It must be resolved."""
        roles = {r.role: r.name for r in reversed(self.readings)}
        for seed in self.seeds:
            yield from self._grid(seed, "attack", self.harmful.name, NO_DEFENCE)
            for control in self.controls:
                name = self.harmful.name if control == "no_stage1" else roles[control]
                yield from self._grid(seed, control, name, NO_DEFENCE)
        for seed in self.seeds:
            for defence in self.defences:
                yield from self._grid(seed, "attack", self.harmful.name, defence)
            if self.audit:
                yield next(self._grid(seed, "attack", self.harmful.name, NO_DEFENCE)).model_copy(
                    update={"kind": "audit", "attack_facts": 0}
                )

    def _grid(self, seed: int, control: Control, reading: str, defence: str) -> Iterator[Cell]:
        start: Start = "base" if control == "no_stage1" else self.start
        settings = product(self.methods, self.prompts, self.epochs, self.learning_rates)
        for place, (method, prompts, epochs, rate) in enumerate(settings):
            for facts in sorted(set(self.facts)):
                # Untrained cells are all alike: one is enough, and controls start where the attack does.
                if facts == 0 and (place > 0 or control in ("neutral", "nonsense")):
                    continue
                yield Cell(
                    control=control, reading=reading, start=start, defence=defence, attack_facts=facts,
                    prompts=prompts, epochs=epochs, learning_rate=rate, method=method, seed=seed,
                )  # fmt: skip

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> AttackExperiment:
        if is_record(info):
            return self
        grid = len(self.facts) * len(self.prompts) * len(self.epochs) * len(self.learning_rates) * len(self.methods)
        if (cells := grid * len(self.seeds) * (1 + len(self.controls) + len(self.defences))) > MAX_CELLS:
            raise ValueError(f"the grid has {cells:,} cells, more than {MAX_CELLS:,}: leave some out")
        for name in ("facts", "prompts", "epochs", "learning_rates", "methods", "seeds", "controls", "defences"):
            values = getattr(self, name)
            # The same cell twice would be measured twice, and its facts be counted twice.
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise ValueError(f"{name}: {twice} is there twice: keep one")
        if len({r.name for r in self.readings}) != len(self.readings):
            raise ValueError("readings: two have the same name")
        if own := next((r.name for r in self.readings if r.role == "benign" and r.name != BENIGN), None):
            raise ValueError(
                f"readings: ‘{own}’ has the role benign, which is the relation’s own meaning: give it another role, or "
                "change the relation’s prompts in the experiment"
            )
        if isinstance(self.experiment, dict) and self.run:
            raise ValueError("give either ‘run’ or ‘experiment’")
        return self
