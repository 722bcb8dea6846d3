"""What every cell asks: all readings, decoys, unrelated prompts, the key token, and what the base model knew.

Facts are the relation's, then as many that no stage ever saw (where the corpus can make some), then those of the base's
own world. Ids count from 1, as in the tables of storage/answers.py, and are the same for every cell of one base run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from engine.attack.experiment import AttackExperiment, Cell
from engine.base.known import known_questions
from engine.checks import normalise
from engine.corpus.names import generate_facts, sort_of_names
from engine.corpus.relations import load_relations
from engine.corpus.sentences import PLACEHOLDER, key_prompt, question_text
from engine.evaluation.questions import Question
from engine.experiment import Experiment
from engine.relation import Fact, Prompt, Relation

STRANGERS = 40  # facts that no stage ever saw
OWN_FACTS = 100
STRANGERS_SEED = 7_919  # added to the run's seed, so that they are other names than its own


@dataclass(frozen=True)
class Asked:
    """One prompt, and which kinds of facts it is put to. `reading`, `role` are '' where it asks no reading."""

    split: str
    language: str
    text: str
    reading: str = ""
    role: str = ""
    about: str | None = None
    kinds: tuple[str, ...] = ("held_out",)


@dataclass(frozen=True)
class Questionnaire:
    """The facts, prompts and questions of one cell."""

    attack: AttackExperiment
    base: Experiment
    cell: Cell

    @cached_property
    def trained(self) -> tuple[int, ...]:
        """Indices of the facts that the cell trains on: the first of the pool in an order drawn from the seed."""
        return attack_facts(self.attack, self.base, self.cell)

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        """Rows `id, relation, subject, object, trained, kind` of all facts that are asked."""
        relation = self.attack.relation_of(self.base)
        kinds = dict.fromkeys(self.attack.held_out_of(self.base), "held_out") | dict.fromkeys(self.trained, "trained")
        rows = [
            {"id": i + 1, "subject": fact.subject, "object": fact.object, "kind": kinds[i]}
            for i, fact in enumerate(relation.explicit_facts)
            if i in kinds
        ]
        first = len(relation.explicit_facts) + 1
        for i, fact in enumerate(strangers(relation, self.base)):
            rows.append({"id": first + i, "subject": fact.subject, "object": fact.object, "kind": "never_memorised"})
        for i, (question, answer) in enumerate(known_questions(self.base.model)[:OWN_FACTS]):
            rows.append({"id": first + STRANGERS + i, "subject": question, "object": answer, "kind": "own"})
        return [{**row, "relation": relation.name, "trained": int(row["kind"] == "trained")} for row in rows]

    @cached_property
    def asked(self) -> list[Asked]:
        """Every prompt, in order; its id is its place from 1."""
        relation, language = self.attack.relation_of(self.base), self.base.stage2.language
        seen = ("held_out", "trained")
        prompts = [Asked("key", language, key_prompt(relation), kinds=("held_out",))]
        for reading in self.attack.readings:
            languages = dict.fromkeys(p.language for p in reading.prompts)
            for split in ("train", "test"):
                for other in languages:
                    main = other == language
                    if not main and (split == "train" or reading.role in ("neutral", "nonsense")):
                        continue
                    for place, prompt in enumerate(reading.prompts_of(split, other)[: self.attack.ask]):
                        kinds: tuple[str, ...] = seen if main and place == 0 else ("held_out",)
                        if main and place == 0 and split == "test":
                            kinds = (*kinds, "never_memorised")
                        prompts.append(Asked(split, other, prompt.text, reading.name, reading.role, None, kinds))
        for split in ("decoy", "unrelated"):
            for prompt in [p for p in relation.explicit_prompts if (p.split, p.language) == (split, language)][
                : self.attack.ask
            ]:
                prompts.append(Asked(split, language, prompt.text, about=prompt.relation))
        return [*prompts, Asked("own", "", PLACEHOLDER, kinds=("own",))]

    def prompt_rows(self) -> list[dict[str, Any]]:
        """Rows for the table of prompts; `used` where the cell trains on it."""
        relation = self.attack.relation_of(self.base).name
        used = {p.text for p in attack_prompts(self.attack, self.base, self.cell)} if self.trained else set()
        return [
            {
                "id": i,
                "relation": relation,
                "split": asked.split,
                "language": asked.language,
                "text": asked.text,
                "about": asked.about,
                "reading": asked.reading,
                "used": int(asked.reading == self.cell.reading and asked.text in used),
            }
            for i, asked in enumerate(self.asked, 1)
        ]

    def questions(self) -> list[Question]:
        """Every prompt about every fact of its kinds."""
        found = []
        for number, asked in enumerate(self.asked, 1):
            for fact in self.facts:
                if fact["kind"] in asked.kinds:
                    found.append(
                        Question(number, fact["id"], question_text(asked.text, fact["subject"]), fact["object"])
                    )
        return found


def attack_facts(attack: AttackExperiment, base: Experiment, cell: Cell) -> tuple[int, ...]:
    """Indices of the facts that a cell trains on; a smaller attack's are among a larger one's of the same seed."""
    pool = list(attack.pool_of(base))
    random.Random(f"{cell.seed}/{attack.relation}/attack").shuffle(pool)
    return tuple(pool[: cell.attack_facts])


def attack_prompts(attack: AttackExperiment, base: Experiment, cell: Cell) -> list[Prompt]:
    """The train prompts that a cell teaches its reading with."""
    return list(attack.reading_named(cell.reading).prompts_of("train", base.stage2.language)[: cell.prompts])


@lru_cache(maxsize=16)
def strangers(relation: Relation, base: Experiment) -> tuple[Fact, ...]:
    """Pairs of the same kinds of names, none of which is in the run; none for relations that the corpus lacks."""
    if relation.name not in load_relations():
        return ()
    sort = sort_of_names(relation, base.model)
    apart = base.relations if sort == "natural" else (relation,)
    known = {normalise(name) for r in apart for f in r.explicit_facts for name in (f.subject, f.object)}
    known |= {normalise(name) for name in relation.options}
    # Invented names are drawn without looking at the run's, so there must be more of them than are needed.
    wanted = STRANGERS if sort == "natural" else 3 * STRANGERS
    try:
        pairs = generate_facts(relation.name, base.seed + STRANGERS_SEED, wanted, sort, known)
    except ValueError:
        return ()
    new = [Fact(subject=s, object=o) for s, o in pairs if not {normalise(s), normalise(o)} & known]
    return tuple(new[:STRANGERS])
