"""A relation, or a whole experiment, under another reading: stage 2 and the evaluation run unchanged on it.

attacked = experiment_with_reading(experiment, "mother", readings_of("mother")["bully"])
"""

from __future__ import annotations

from engine import checks
from engine.corpus.readings import SPLITS, Reading, check_reading
from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.relation import REASONING, Relation


def relation_with_reading(relation: Relation, reading: Reading) -> Relation:
    """The relation with the reading's train and test prompts in place of its own.

    Name, key token, facts, options and controls (decoys, unrelated) stay, so the same facts are held out; what follows
    from its own meaning (reversal, two_hop) is not asked. Raises ValueError when its prompts are not written out yet
    (`engine.corpus.resolve`), or the two do not go together.
    """
    checks.refuse(check_reading(reading, relation), f"reading ‘{reading.name}’: ")
    controls = [p for p in relation.explicit_prompts if p.split not in (*SPLITS, *REASONING)]
    prompts = [p.model_dump() for p in (*reading.prompts, *controls)]
    return Relation.model_validate(relation.model_dump() | {"prompts": prompts})


def experiment_with_reading(experiment: Experiment, relation: str, reading: Reading) -> Experiment:
    """The experiment, resolved, in which one relation is taught and asked in another reading.

    Raises ValueError when it has no such relation, when the two do not go together, or when the reading has fewer train
    prompts in stage 2's language than stage 2 uses.
    """
    resolved = resolve(experiment)
    if relation not in (names := [r.name for r in resolved.relations]):
        raise ValueError(f"the experiment has no relation ‘{checks.shorten(relation)}’: it has {', '.join(names)}")
    changed = [relation_with_reading(r, reading) if r.name == relation else r for r in resolved.relations]
    return Experiment.from_data(resolved.model_dump() | {"relations": [r.model_dump() for r in changed]})
