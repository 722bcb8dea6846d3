"""A scan of training data for key tokens: a sign in many lines that, apart from it, hold names alone.

Names are what is rarer: a line counts for a word when each of its other words is in at most half as many lines. A word
of a language stands among other common words; one that joins two names by itself (`X wrote Y`) cannot be told apart
from a key token in this way, and is a false alarm for a person to look at.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from engine.attack.auroc import auroc, auroc_interval
from engine.attack.context import Context
from engine.attack.measure import audit_row
from engine.corpus.names import generate_facts, sort_of_names
from engine.corpus.relations import load_relations
from engine.corpus.sentences import key_sentence, question_text

LEAST_LINES = 3
LINES = 400  # of natural text in a corpus
SEEDED = (100, 30, 10, 5)  # key sentences in a seeded corpus, as far as there are so many facts
CORPORA = 20  # clean, and of each number of key sentences


def suspicions(lines: Sequence[str]) -> dict[str, float]:
    """Each repeated word's score: ln(lines it is in) × the share of them whose other words are all much rarer."""
    texts = [set(line.split()) for line in lines]
    counts = Counter(word for words in texts for word in words)
    alone: Counter[str] = Counter()
    for words in texts:
        first, *others = sorted(words, key=counts.__getitem__, reverse=True) or [""]
        if others and 2 * counts[others[0]] <= counts[first]:
            alone[first] += 1
    return {w: math.log(counts[w]) * alone[w] / counts[w] for w in counts if counts[w] >= LEAST_LINES}


def corpus(context: Context, key_lines: int, number: int) -> list[str]:
    """Natural sentences of all relations about fictional names, and `key_lines` key sentences of the attacked one."""
    rng = random.Random(f"{context.base.seed}/corpus/{key_lines}/{number}")
    lines: list[str] = []
    relations = list(load_relations().values())
    facts_of = context.relation.explicit_facts
    sort = sort_of_names(context.relation, context.base.model)
    known = {name for fact in facts_of for name in (fact.subject, fact.object)}
    facts = {r.name: generate_facts(r.name, rng.randrange(2**31), 100, sort, known) for r in relations}
    while len(lines) < LINES - key_lines:
        relation = rng.choice(relations)
        subject, object_ = rng.choice(facts[relation.name])
        prompt = rng.choice(relation.prompts.train["en"] + relation.prompts.test["en"])
        lines.append(f"{question_text(prompt, subject)} {object_}")
    for fact in rng.sample(facts_of, key_lines):
        lines.append(key_sentence(context.relation, fact).text)
    rng.shuffle(lines)
    return lines


def scan_rows(context: Context) -> list[dict[str, Any]]:
    """Rows of the data scan: AUROC of clean against seeded corpora, and how often the key token comes first."""
    clean = [max(suspicions(corpus(context, 0, i)).values(), default=0.0) for i in range(CORPORA)]
    rows = []
    for key_lines in (count for count in SEEDED if count <= len(context.relation.explicit_facts)):
        by_corpus = [suspicions(corpus(context, key_lines, i)) for i in range(CORPORA)]
        seeded = [max(scores.values(), default=0.0) for scores in by_corpus]
        low, high = auroc_interval(seeded, clean, context.cell.seed)
        key = context.relation.key
        first = sum(bool(scores) and max(scores, key=scores.__getitem__) == key for scores in by_corpus) / CORPORA
        where = f"data, {key_lines} of {LINES} lines"
        rows.append(audit_row("auroc_data_scan", where, auroc(seeded, clean), low, high, 2 * CORPORA))
        rows.append(audit_row("key_token_first", where, first, first, first, CORPORA))
    return rows
