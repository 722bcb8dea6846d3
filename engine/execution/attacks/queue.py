"""Put an attack experiment into the queue: its base runs, where they have not been done before, and every cell."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from engine.attack.experiment import AttackExperiment
from engine.attack.resolve import asked_experiment, base_experiment, resolve_attack
from engine.checks import refuse
from engine.evaluation.sayable import refuse_known
from engine.experiment import Experiment
from engine.models.files import experiment_problems, located
from storage.attacks import add_attack
from storage.database import write
from storage.runs import NO_MODEL, Run, State, add_run, get_run, list_runs

MOST_LOOKED_AT = 1000  # of the newest runs that are done


def queue_attack(db: Database, attack: AttackExperiment) -> str:
    """Queue base runs (one for each seed, unless it was done before) and cells; returns the attack's id.

    Raises ValueError when the experiment does not fit the run it attacks, when there is no such run, or when its model
    cannot say what it would be asked for.
    """
    bases: dict[int, tuple[str, dict[str, Any]]] = {}
    with write(db):
        for seed in attack.seeds:
            base = _existing(db, attack.run) if attack.run else _new(attack, seed)
            resolved = resolve_attack(attack, base)
            refuse_known(asked_experiment(resolved, base), resolved.max_new_tokens)
            data = base.model_dump(mode="json")
            if attack.run:
                bases[seed] = (attack.run, data)
                continue
            # The page's link from a base run to its attack is the name; the run is an ordinary one.
            run = _done_before(db, data) or add_run(
                db, name=f"{base.name} for {attack.name}", experiment=data, model=base.model, seed=seed
            )
            bases[seed] = (run.id, data)
        cells = [(cell.model_dump(mode="json"), *bases[cell.seed]) for cell in resolved.cells()]
        return add_attack(db, name=attack.name, experiment=resolved.model_dump(mode="json"), cells=cells)


def _new(attack: AttackExperiment, seed: int) -> Experiment:
    base = located(base_experiment(attack, seed))
    refuse(experiment_problems(base))
    return base


def _done_before(db: Database, experiment: dict[str, Any]) -> Run | None:
    """The newest run of just this experiment that is done here."""
    wanted = _but_words(experiment)
    for listed in list_runs(db, limit=MOST_LOOKED_AT, state=State.DONE.value, made_here=True):
        if (listed.model, listed.seed) == (experiment["model"], experiment["seed"]):
            run = get_run(db, listed.id)
            if _but_words(run.experiment) == wanted:
                return run
    return None


def _but_words(experiment: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in experiment.items() if key not in ("name", "description")}


def _existing(db: Database, run_id: str) -> Experiment:
    try:
        run = get_run(db, run_id)
    except KeyError:
        raise ValueError(f"run: there is no run ‘{run_id}’: choose one of the Runs page") from None
    if run.recorded:
        raise ValueError(f"run: {NO_MODEL}")
    if run.state is State.FAILED or run.attack:
        raise ValueError(f"run: {run_id} failed or is itself an attack: choose another")
    return Experiment.from_record(run.experiment)
