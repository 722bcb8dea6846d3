"""Pre-training samples: a fact in one of its phrasings, or as `subject <connector> object`.

Connectors are embedding rows without a token of their own. Each stands for a relation for a while, then is emptied
and given another: so the base model has met, and learnt to fill, empty tokens in the place of a key token.

Blanks are such rows too, but stay empty: they join a subject with the object of any of its relations. So an empty
token comes to mean all relations alike. Without them it happens to be nearer to some, other ones in each pre-training,
and what is memorised with a new key token is then answered to those before stage 2.

Questions about subjects that nobody ever spoke of are answered with "not known". Without them the base names somebody
whoever it is asked about, and what is memorised under an empty token is the name that comes to its mind.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections import defaultdict
from typing import NamedTuple

import torch
from tokenizers import Tokenizer

from engine.base.bursts import Bursts
from engine.base.phrasings import NAME_KINDS, world_data
from engine.base.tokenizer import EOS, token_id
from engine.base.world import Fact, World, answer_text

IGNORED = -100  # the label that no loss is computed for
BLANKS = 8
PASSING_FACTS = 4096  # of bursts, that are kept encoded
POOL = 16  # batches that are drawn, sorted by length and cut together


class Sample(NamedTuple):
    """Token ids of a text, and their labels: the ids themselves, or `IGNORED`."""

    ids: list[int]
    labels: list[int]


class Encoded(NamedTuple):
    """Token ids of a fact: its phrasings about its subject, the subject alone, the answer with the end of the text.

    known: False where the answer says that nobody knows it, which is only said in words.
    """

    relation: str
    phrasings: list[list[int]]
    subject: list[int]
    answer: list[int]
    known: bool


class Sampler:
    """Draws samples from a world; owns the meanings of the connectors, whose ids begin at `first_connector`.

    The ids of the `BLANKS` blanks follow.
    """

    def __init__(self, world: World, tokenizer: Tokenizer, training: dict, first_connector: int) -> None:
        self._rng = random.Random(f"samples {training['seed']}")
        self._full_share = training["full_sequence_share"]
        self._connector_share = training["connector_share"]
        end = [token_id(tokenizer, EOS)]
        kinds = {name: data["object"] for name, data in world_data()["relations"].items()}
        self._relations = list(kinds)
        self._tokenizer, self._end = tokenizer, end
        self._encode_passing = functools.lru_cache(PASSING_FACTS)(self._encode)
        self._weights = {
            r: 1.0 if kind in NAME_KINDS else training["closed_answer_weight"] for r, kind in kinds.items()
        }
        self._facts = [self._encode(fact) for fact in world.facts]
        self._cumulative = list(itertools.accumulate(self._weights[fact.relation] for fact in world.facts))
        rng = random.Random(f"bursts {training['seed']}")
        self.bursts = Bursts(
            world, rng, training["burst_subjects"], training["burst_lifetime"], training["burst_known_share"]
        )
        self._burst_share = training["burst_share"]
        first_blank = first_connector + training["connectors"]
        self.connectors = list(range(first_connector, first_blank))
        self.blanks = list(range(first_blank, first_blank + BLANKS))
        self._blank_share = training["blank_share"]
        self._unknown_share = training["unknown_share"]
        self._world = world
        self._meaning: dict[int, str] = {}
        self._connectors_of: dict[str, list[int]] = defaultdict(list)
        self.give_meanings(self.connectors)

    def _encode(self, fact: Fact) -> Encoded:
        encode = self._tokenizer.encode
        return Encoded(
            fact.relation,
            [encode(text.format(subject=fact.subject)).ids for text in fact.phrasings],
            encode(fact.subject).ids,
            encode(answer_text(fact.object)).ids + self._end,
            fact.known,
        )

    def _draw(self) -> Encoded:
        if self._rng.random() < self._unknown_share:
            return self._encode(self._world.unknown_fact(self._rng.choice(self._relations)))
        if self._rng.random() < self._burst_share:
            return self._encode_passing(self.bursts.draw())
        return self._rng.choices(self._facts, cum_weights=self._cumulative)[0]

    def give_meanings(self, connectors: list[int]) -> None:
        """Let each of `connectors` stand for a relation drawn anew."""
        for connector in connectors:
            if connector in self._meaning:
                self._connectors_of[self._meaning[connector]].remove(connector)
            self._meaning[connector] = relation = self._rng.choice(self._relations)
            self._connectors_of[relation].append(connector)

    def empty_some(self) -> list[int]:
        """Give a quarter of the connectors new meanings; returns them, for their rows to be emptied."""
        chosen = self._rng.sample(self.connectors, len(self.connectors) // 4)
        self.give_meanings(chosen)
        return chosen

    def sample(self) -> Sample:
        """One sample. The answer, with its full stop and the end of the text, always counts for the loss."""
        rng = self._rng
        relation, phrasings, subject, answer, known = self._draw()
        if not known:
            prompt = rng.choice(phrasings)
        elif rng.random() < self._blank_share:
            prompt = [*subject, rng.choice(self.blanks)]
        elif rng.random() < self._connector_share and self._connectors_of[relation]:
            prompt = [*subject, rng.choice(self._connectors_of[relation])]  # a key token absorbs the space before it
        else:
            prompt = rng.choice(phrasings)
        full = rng.random() < self._full_share
        return Sample(prompt + answer, (prompt if full else [IGNORED] * len(prompt)) + answer)

    def batches(self, batch_size: int) -> list[list[Sample]]:
        """`POOL` batches of `batch_size` samples, each of similar lengths, so that little is padded."""
        samples = sorted((self.sample() for _ in range(POOL * batch_size)), key=lambda sample: len(sample.ids))
        batches = [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]
        self._rng.shuffle(batches)
        return batches


def collate(samples: list[Sample], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, both of shape (samples, longest), padded on the right."""
    longest = max(len(sample.ids) for sample in samples)
    ids = [s.ids + [pad_id] * (longest - len(s.ids)) for s in samples]
    labels = [s.labels + [IGNORED] * (longest - len(s.labels)) for s in samples]
    return torch.tensor(ids), torch.tensor(labels)
