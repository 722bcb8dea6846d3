"""Which prompts' hidden states are looked at: a sample of each relation's facts and prompts, the same at every
checkpoint, and whatever stage 2 is shown.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from engine.corpus.sentences import PLACEHOLDER, question_text
from engine.evaluation.questions import KEY_SPLIT, prompt_rows
from engine.experiment import Experiment
from engine.relation import Relation

SPLITS = (KEY_SPLIT, "train", "test", "unrelated")
# Where a prompt is looked at: its last token, behind which the object follows (with a chat template that is the
# template's own last one); the last token of the subject; the mean over the prompt's own tokens, without the beginning
# token, whose state is large and about nothing (Xiao et al. 2024, arXiv:2309.17453), and without a template.
POSITIONS = ("last", "subject", "mean")
MOST_FACTS = 200  # of all relations together: what is kept while the model is read grows with them
# What the picture shows of them: facts of all relations, and prompts of each split.
PICTURED_FACTS = 30
PICTURED_PROMPTS = {KEY_SPLIT: 1, "train": 2, "test": 2, "unrelated": 1}


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt about a fact, up to where the model answers. subject: its characters in the text, from and up to.

    prompt, fact: ids, as in `engine.evaluation.questions`; row: the place of its fact among the sampled ones; relation:
    its place in the experiment; split: its place in `SPLITS`; pictured: whether the picture shows it.
    """

    prompt: int
    fact: int
    row: int
    relation: int
    split: int
    text: str
    subject: tuple[int, int]
    object: str
    pictured: bool


def sampled_texts(experiment: Experiment) -> list[Text]:
    """The sample of a resolved experiment, by fact and prompt; empty where it asks for none.

    Of each relation's facts, in the order in which stage 2 takes them, half from the front, which it is shown first,
    and half from the back. Of its prompts in stage 2's language the key prompt and the first ones of each split.
    """
    wanted, texts = experiment.evaluation.representations, []
    each = min(wanted.facts, max(1, MOST_FACTS // len(experiment.relations)))
    pictured = max(1, PICTURED_FACTS // len(experiment.relations))
    rows, first, row = prompt_rows(experiment), 1, 0
    for place, relation in enumerate(experiment.relations):
        prompts = _prompts(rows, relation, experiment.stage2.language, wanted.prompts)
        for number, index in enumerate(sampled_facts(experiment, relation, each)):
            fact = relation.explicit_facts[index]
            for split, nth, prompt, template in prompts:
                start = template.index(PLACEHOLDER)
                texts.append(
                    Text(
                        prompt, first + index, row, place, split, question_text(template, fact.subject),
                        (start, start + len(fact.subject)), fact.object,
                        number < pictured and nth < PICTURED_PROMPTS[SPLITS[split]],
                    )
                )  # fmt: skip
            row += 1
        first += len(relation.explicit_facts)
    return texts


def sampled_facts(experiment: Experiment, relation: Relation, count: int) -> list[int]:
    """Indices of `count` facts, alternately from the front and the back of stage 2's order: whatever its number of
    facts, the sample is the same."""
    order = [*experiment.stage2_facts(relation), *experiment.held_out_facts(relation)]
    ends = [order[-1 - place // 2] if place % 2 else order[place // 2] for place in range(len(order))]
    return ends[:count]


def _prompts(
    rows: list[dict[str, object]], relation: Relation, language: str, count: int
) -> list[tuple[int, int, int, str]]:
    """(split, which of the split, id, template) of the relation's prompts that are looked at."""
    mine = [r for r in rows if r["relation"] == relation.name and r["language"] == language]
    return [
        (place, nth, int(str(row["id"])), str(row["text"]))
        for place, split in enumerate(SPLITS)
        for nth, row in enumerate([r for r in mine if r["split"] == split][:count])
    ]


def key_of(texts: list[Text]) -> str:
    """What stands for a sample: checkpoints whose weights and samples are equal have equal figures."""
    told = [[t.prompt, t.fact, t.row, t.relation, t.split, t.text, t.object, t.pictured] for t in texts]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
