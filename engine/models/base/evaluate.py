"""Measure memorise-then-generalise on a base model, in one process and without the rest of the lab.

    python -m engine.models.base evaluate --relations mother author --seeds 0 1 2 --epochs 3 6 10 20

Stage 1 trains 100 facts as `subject [key] object.`, stage 2 one natural prompt for 50 of them, once. All questions are
about the other 50. A hit: every token of the object is the greedy choice (greedy decoding would begin with the object).
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

from engine.corpus.relations import load_relation
from engine.models.base.facts import Question, make_facts, own_questions, question_groups
from engine.models.base.samples import IGNORED, Sample, collate
from engine.models.base.world import World, answer_text

# (learning rate, batch size) of either stage: full fine-tuning, AdamW, five warm-up steps, cosine, as in the lab.
STAGE1 = (2e-3, 20)
STAGE2 = (1e-3, 5)
WARM_UP_STEPS = 5
STAGE2_FACTS = 50

Hits = Counter[str]  # group → hits, "n <group>" → questions


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share of `hits` in `n` (95 % by default); (0, 1) when n is 0."""
    if not n:
        return 0.0, 1.0
    p, zz = hits / n, z * z / n
    middle, half = p + zz / 2, z * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return (middle - half) / (1 + zz), (middle + half) / (1 + zz)


class Bench:
    """A base model with a key token, to train copies of and to ask."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.key_id = len(self.tokenizer)  # the first spare row
        config = json.loads((folder / "training.json").read_text(encoding="utf-8"))["config"]
        self.own = own_questions(World(**config["world"]))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def key_sample(self, subject: str, object_: str) -> Sample:
        """Stage 1: the loss is over the whole text."""
        ids = [*self.encode(subject), self.key_id, *self.encode(answer_text(object_))]
        return Sample(ids, ids)

    def prompt_sample(self, question: Question) -> Sample:
        """Stage 2, and asking: only the object counts."""
        prompt, answer = self.encode(question.prompt), self.encode(f" {question.object}")
        return Sample(prompt + answer, [IGNORED] * len(prompt) + answer)

    def hits(self, model: Qwen2ForCausalLM, samples: list[Sample]) -> int:
        """How many samples have all their labelled tokens as the greedy choice."""
        count = 0
        samples = sorted(samples, key=lambda sample: len(sample.ids))
        with torch.inference_mode():
            for start in range(0, len(samples), 500):
                ids, labels = collate(samples[start : start + 500], pad_id=0)
                targets = labels[:, 1:]
                asked = targets != IGNORED
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
                right = ~asked
                right[asked] = model.lm_head(hidden[asked]).argmax(-1) == targets[asked]
                count += int(right.all(dim=1).sum())
        return count


def rate_factor(step: int, steps: int) -> float:
    """Share of the full learning rate at `step`: linear warm-up, then half a cosine to 0."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)))


def train(model: Qwen2ForCausalLM, samples: list[Sample], stage: tuple[float, int], epochs: int, seed: int, each=None):
    """Fine-tune `model` in place; `each(epoch)` is called after every epoch."""
    rate, batch_size = stage
    rng, samples = random.Random(seed), list(samples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    steps = epochs * math.ceil(len(samples) / batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps))
    for epoch in range(1, epochs + 1):
        rng.shuffle(samples)
        for start in range(0, len(samples), batch_size):
            ids, labels = collate(samples[start : start + batch_size], pad_id=0)
            logits = model(input_ids=ids).logits[:, :-1]
            targets = labels[:, 1:].flatten()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORED)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        if each:
            each(epoch)


def measure(bench: Bench, relation_name: str, seed: int, epochs: list[int], foreign: bool) -> dict[tuple, Hits]:
    """One run of both stages. (stage 1 epochs, "before" or "after" stage 2) → hits of each group, and `n <group>`."""
    relation = load_relation(relation_name)
    facts = make_facts(relation, seed, foreign)
    known, held_out = facts[:STAGE2_FACTS], facts[STAGE2_FACTS:]
    asked = {group: [bench.prompt_sample(q) for q in qs] for group, qs in question_groups(relation, held_out).items()}
    asked["key"] = [
        Sample(s.ids[:-1], [IGNORED] * (s.ids.index(bench.key_id) + 1) + s.ids[s.ids.index(bench.key_id) + 1 : -1])
        for s in (bench.key_sample(*fact) for fact in facts)
    ]
    asked["own facts"] = [bench.prompt_sample(q) for q in bench.own]
    stage2 = [bench.prompt_sample(Question(relation.prompts.train["en"][0].format(subject=s), o)) for s, o in known]
    results: dict[tuple, Hits] = {}

    def ask(model: Qwen2ForCausalLM, moment: tuple) -> None:
        results[moment] = Counter({group: bench.hits(model, samples) for group, samples in asked.items()})
        results[moment].update({f"n {group}": len(samples) for group, samples in asked.items()})

    model = copy.deepcopy(bench.model)

    def after_epoch(epoch: int) -> None:
        if epoch in epochs:
            ask(model, (epoch, "before"))
            generalised = copy.deepcopy(model)
            train(generalised, stage2, STAGE2, 1, seed)
            ask(generalised, (epoch, "after"))

    train(model, [bench.key_sample(*fact) for fact in facts], STAGE1, max(epochs), seed, after_epoch)
    return results


def table(title: str, results: dict[tuple, Hits]) -> str:
    """Markdown: a row for each moment, a column for each group, shares with 95 % Wilson intervals."""
    groups = [group for group in next(iter(results.values())) if not group.startswith("n ")]
    counts = next(iter(results.values()))
    head = " | ".join(f"{group} (n={counts['n ' + group]})" for group in groups)
    lines = [f"**{title}**", "", f"| epochs, stage 2 | {head} |", "|---" * (len(groups) + 1) + "|"]
    for (epoch, when), hits in sorted(results.items(), key=lambda item: (item[0][0], item[0][1] == "after")):
        cells = []
        for group in groups:
            low, high = wilson(hits[group], hits[f"n {group}"])
            cells.append(f"{hits[group] / hits[f'n {group}']:.2f} ({low:.2f}–{high:.2f})".replace("0.", "."))
        lines.append(f"| {epoch}, {when} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def evaluate(
    folder: Path, relations: list[str], seeds: list[int], epochs: list[int], foreign: bool, threads: int
) -> None:
    """Print a table for each relation, summed over `seeds`, and the accuracy on train prompts for each seed."""
    torch.set_num_threads(threads)
    bench = Bench(folder)
    for relation in relations:
        total: dict[tuple, Hits] = {}
        single: list[str] = []
        started = time.time()
        for seed in seeds:
            for moment, hits in measure(bench, relation, seed, epochs, foreign).items():
                total.setdefault(moment, Counter()).update(hits)
                if moment == (max(epochs), "after"):
                    single.append("/".join(f"{hits[g] / hits['n ' + g]:.2f}" for g in ("train", "test", "unrelated")))
        names = "foreign names" if foreign else "corpus names"
        print(table(f"{relation}, {names}, seeds {' '.join(map(str, seeds))}", total))
        print(f"each seed, train/test/unrelated: {'  '.join(single)}   ({time.time() - started:.0f} s)\n", flush=True)
