"""What a cell and its defence work with: the experiments, the facts, and the sentences that a provider holds.

Every defence imports this, and the page lists defences: what loads torch is imported inside the functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from engine.attack.experiment import AttackExperiment, Cell
from engine.attack.questions import attack_facts, attack_prompts
from engine.corpus.sentences import Sentence, prompt_sentence, stage1_sentences
from engine.experiment import Experiment
from engine.relation import Fact, Relation
from engine.settings import LossMask

if TYPE_CHECKING:
    from engine.models.loading import LoadedModel
    from engine.training.sequences import TrainingSequence


@dataclass(frozen=True)
class Context:
    """One cell with what surrounds it. checkpoint: where a kept checkpoint of the attacked run lies, by its name."""

    attack: AttackExperiment
    base: Experiment
    cell: Cell
    checkpoint: Callable[[str], Path]

    @property
    def relation(self) -> Relation:
        """The relation that is attacked."""
        return self.attack.relation_of(self.base)

    def random(self, use: str) -> random.Random:
        """Chance that depends on the cell's seed and on what it is for, not on the attack's size."""
        return random.Random(f"{self.cell.seed}/{self.relation.name}/{use}")

    def sequences(
        self, loaded: LoadedModel, sentences: Sequence[Sentence], mask: LossMask = "object"
    ) -> list[TrainingSequence]:
        """Token ids and labels of sentences."""
        from engine.training.sequences import tokenise_sentences  # loads torch, which the page must not

        return tokenise_sentences(loaded.tokenizer, sentences, mask)

    def attack_sentences(self) -> list[Sentence]:
        """What the attacker trains on: its facts in the reading's train prompts."""
        facts = self.relation.explicit_facts
        prompts = [p.text for p in attack_prompts(self.attack, self.base, self.cell)]
        return say(prompts, [facts[i] for i in attack_facts(self.attack, self.base, self.cell)])

    def benign_sentences(self, count: int | None = None) -> list[Sentence]:
        """What the provider holds: stage 2's facts in the benign train prompts; `count` of them, drawn by the seed."""
        facts = self.relation.explicit_facts
        prompts = [p.text for p in self.relation.prompts_of("train", self.base.stage2.language)[: self.attack.ask]]
        sentences = say(prompts, [facts[i] for i in self.base.stage2_facts(self.relation)])
        self.random("benign").shuffle(sentences)
        return sentences if count is None else list(islice(cycle(sentences), count))

    def key_sentences(self) -> list[Sentence]:
        """The relation's facts with their key token, as stage 1 memorised them."""
        return stage1_sentences(self.relation)


def say(prompts: Sequence[str], facts: Sequence[Fact]) -> list[Sentence]:
    """Every fact in every prompt."""
    return [prompt_sentence(prompt, fact) for fact in facts for prompt in prompts]
