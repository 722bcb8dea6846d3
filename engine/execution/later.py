"""Facts that come later: an experiment in which a finished run's model memorises further ones through the key token
that it understands by now, so that what is asked in words is answered after rote memorisation alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from engine.corpus.names import Sort, all_names, generate_facts
from engine.corpus.relations import load_relations
from engine.experiment import Experiment
from engine.models.folders import whole
from engine.relation import Fact, Relation
from storage.checkpoints import CheckpointName
from storage.folders import checkpoint_folder, run_folder
from storage.runs import Run, State

KEPT_ROWS = "as they are"
SEEDS = 2**31
MOST_BEFORE = 100  # runs, each on the model of the one before


def learns_more(run: Run) -> bool:
    """Whether `later_experiment` can be made of a run, as far as the run says."""
    if run.state is not State.DONE or run.recorded:
        return False
    try:
        experiment = Experiment.from_record(run.experiment)
    except ValueError:  # of an older or a newer lab
        return False
    return bool(experiment.branch_epochs and experiment.key_tokens and experiment.tuning.method == "full")


def later_experiment(home: Path, run: Run) -> Experiment:
    """As many facts again about others, on the run's last generalised checkpoint, whose key tokens keep their meaning.

    Others than in this run, and in those that its own model comes from, which has their facts. Everything
    else is as it was. Raises ValueError, with a sentence, where there is no such checkpoint that can be trained on, or
    no further made-up names for its relations.
    """
    experiment = Experiment.from_record(run.experiment)
    if not experiment.branch_epochs or not experiment.key_tokens:
        raise ValueError(f"run {run.id} gave no key token a meaning: choose one with both stages")
    if experiment.tuning.method != "full":
        raise ValueError(
            f"run {run.id} trained an adapter: write the whole model with ‘rote-lab export model {run.id} --merged’, "
            "and give that folder as the model of an experiment of your own, with key_token_rows ‘as they are’"
        )
    name = f"generalised@{experiment.branch_epochs[-1]}"
    folder = whole(checkpoint_folder(run_folder(home, run.id), name))
    if folder is None:
        raise ValueError(f"run {run.id} has no {CheckpointName.parse(name).kind} model any more: run it again")
    seed = (experiment.seed + 1) % SEEDS
    had: dict[str, list[Fact]] = {}
    for earlier in _with_what_came_before(experiment):
        for relation in earlier.relations:
            had.setdefault(relation.name, []).extend(relation.explicit_facts)
    return Experiment.from_data(
        experiment.model_dump()
        | {
            "name": f"{experiment.name}, facts that come later"[:80],
            "description": f"Run {run.id} gave the key token its meaning; these facts are memorised by it alone.",
            "model": str(folder.resolve()),
            "key_token_rows": KEPT_ROWS,
            "seed": seed,
            "relations": [_about_others(r, seed, had[r.name]).model_dump() for r in experiment.relations],
        }
    )


def _with_what_came_before(experiment: Experiment) -> list[Experiment]:
    """The experiment, and those of the runs that its model comes from, as far as their folders are there."""
    line = [experiment]
    for _ in range(MOST_BEFORE):
        checkpoints = Path(line[-1].model).parent
        if checkpoints.name != "checkpoints":
            break
        try:
            record = json.loads((checkpoints.parent / "run.json").read_text(encoding="utf-8"))
            line.append(Experiment.from_record(record["experiment"]))
        except (OSError, ValueError, KeyError, TypeError):
            break
    return line


def _about_others(relation: Relation, seed: int, had: list[Fact]) -> Relation:
    """The relation with as many facts, none with a name of the facts that the model `had` before, its own first."""
    data, wanted = load_relations().get(relation.name), len(relation.explicit_facts)
    if data is None:
        raise ValueError(
            f"‘{relation.name}’ is a relation of your own, and the lab has no further facts of it: copy the run's "
            f"experiment and write them, with its model and key_token_rows ‘{KEPT_ROWS}’"
        )
    taken = {name for fact in had for name in (fact.subject, fact.object)}
    kinds = [all_names(kind) for kind in (data.subject_kind, data.object_kind)]
    sort: Sort = "invented" if had[0].subject in kinds[0] else "natural"
    # Invented names are drawn among all, and some are left out afterwards; natural ones keep clear of those.
    count = wanted if sort == "natural" else min(2 * wanted + len(had), min(map(len, kinds)) // 2)
    pairs = generate_facts(relation.name, seed, count, sort, taken)
    free = [Fact(subject=s, object=o) for s, o in pairs if s not in taken and o not in taken][:wanted]
    if len(free) < wanted:
        raise ValueError(f"‘{relation.name}’ has no {wanted} further made-up names: write facts of your own")
    return relation.model_copy(update={"facts": tuple(free), "options": ()})
