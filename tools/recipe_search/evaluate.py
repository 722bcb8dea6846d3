"""Measure base models of the recipe: the evidence behind the model card.

    python -m tools.recipe_search evaluate --models weights world2 world3 --seeds 0 1 2 --out evidence.json

Each model (a folder of engine.base) is put through the trials of trials.py with several seeds of facts: the five
relations one by one and together, fine-tuning with one prompt alone, reversal and 2-hop, names such as users bring.
`--out` keeps every count; `python -m tools.recipe_search table evidence.json` prints the tables again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tools.recipe_search.trials import RELATIONS, Outcome

KINDS = ("singly", "jointly", "one-prompt SFT", "reversal and 2-hop", "names from outside the word lists")
ONE_RELATION = ("singly", "one-prompt SFT", "names from outside the word lists")

# One cell of the evidence: {model, kind, relation, seed, moment, group, hits, n}
Cell = dict[str, Any]


def cells_of(model: Path, kind: str, relation: str, seed: int) -> list[Cell]:
    """Run one trial, and count its hits. `relation` is `all` for trials of several relations together."""
    import torch

    from tools.recipe_search import trials

    torch.set_num_threads(1)
    own = own_facts(model)
    run: dict[str, Callable[[], Outcome]] = {
        "singly": lambda: trials.two_stages(trials.experiment_about(str(model), [relation], seed), own),
        "jointly": lambda: trials.two_stages(trials.experiment_about(str(model), RELATIONS, seed), own, epochs=(20,)),
        "one-prompt SFT": lambda: trials.prompt_tuning_alone(str(model), relation, seed, own),
        "reversal and 2-hop": lambda: trials.reversal_and_two_hop(str(model), seed),
        "names from outside the word lists": lambda: trials.two_stages(
            trials.experiment_about(str(model), [relation], seed, outside=True), own, epochs=(20,)
        ),
    }
    where = {"model": model.name, "kind": kind, "relation": relation, "seed": seed}
    return [
        {**where, "moment": moment, "group": group, "hits": sum(hits), "n": len(hits)}
        for moment, groups in run[kind]().items()
        for group, hits in groups.items()
    ]


def own_facts(model: Path) -> list[Any]:
    """Questions about facts of the world that the model in this folder was pre-trained on."""
    from engine.base.facts import own_questions
    from engine.base.world import World

    config = json.loads((model / "training.json").read_text(encoding="utf-8"))["config"]
    return own_questions(World(**config["world"]))


def evaluate(
    models: Sequence[Path],
    seeds: Sequence[int],
    relations: Sequence[str] = RELATIONS,
    kinds: Sequence[str] = KINDS,
    jobs: int = 1,
    log: Callable[[str], None] = print,
) -> list[Cell]:
    """All cells of the trials `kinds` on every model with every seed, `jobs` at a time."""
    tasks = [
        (model.resolve(), kind, relation, seed)
        for kind in kinds
        for seed in seeds
        for model in models
        for relation in (relations if kind in ONE_RELATION else ("all",))
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started, cells = time.monotonic(), []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(cells_of, *task): task for task in tasks}
        for done, future in enumerate(as_completed(futures), 1):
            cells += future.result()
            model, kind, relation, seed = futures[future]
            log(f"{done}/{len(tasks)} {model.name} {kind} {relation} seed {seed}  {time.monotonic() - started:.0f} s")
    return sorted(cells, key=lambda c: (KINDS.index(c["kind"]), c["model"], c["relation"], c["seed"]))
