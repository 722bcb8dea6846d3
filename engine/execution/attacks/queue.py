"""Put an attack experiment into the queue: its base runs, where they have not been done before, and every cell.

An attack can be made wider later: more seeds, sizes, controls, defences. What it measured already stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlite_utils import Database

from engine.attack.experiment import AttackExperiment, Cell
from engine.attack.resolve import asked_experiment, base_experiment, resolve_attack
from engine.checks import refuse
from engine.evaluation.sayable import refuse_known
from engine.experiment import Experiment
from engine.models.files import experiment_problems, located
from storage.attacks import AttackCell, add_attack, get_attack, list_cells, replan_attack
from storage.database import write
from storage.runs import NO_MODEL, Run, State, add_run, get_run, list_runs

MOST_LOOKED_AT = 1000  # of the newest runs that are done
GRID = (
    "facts", "prompts", "epochs", "learning_rates", "methods", "seeds", "controls", "defences", "audit", "description",
)  # fmt: skip


def queue_attack(db: Database, attack: AttackExperiment) -> str:
    """Queue base runs (one for each seed, unless it was done before) and cells; returns the attack's id.

    Raises ValueError when the experiment does not fit the run it attacks, when there is no such run, or when its model
    cannot say what it would be asked for.
    """
    with write(db):
        resolved, bases = _planned(db, attack)
        cells = [(cell.model_dump(mode="json"), *bases[cell.seed]) for cell in resolved.cells()]
        return add_attack(db, name=attack.name, experiment=resolved.model_dump(mode="json"), cells=cells)


def widen_attack(db: Database, attack_id: str, wider: AttackExperiment) -> int:
    """Queue those cells of a wider plan that an attack does not have yet; returns how many they are.

    Raises KeyError when there is no such attack, ValueError when the plan leaves out what was planned before, would
    have had it measured otherwise, or changes more than its grid.
    """
    with write(db):
        attack = get_attack(db, attack_id)
        if attack.recorded:
            raise ValueError("a recorded attack has no models here: measure it again, as wide as it is to be")
        there = {Cell.model_validate(c.cell): c for c in list_cells(db, attack_id)}
        planned = AttackExperiment.from_record(attack.experiment)
        if beyond := _changed(planned, wider) - set(GRID):
            raise ValueError(f"{', '.join(sorted(beyond))}: only the grid can be made wider: {', '.join(GRID)}")
        resolved, bases = _planned(db, wider, there)
        cells = list(resolved.cells())
        if lost := there.keys() - set(cells):
            raise ValueError(
                f"{len(lost)} cells would no longer be part of it: leave all that is planned in, and add to it"
            )
        _refuse_other_questions(db, planned, resolved, there)
        todo = [there[c].run if c in there else (c.model_dump(mode="json"), *bases[c.seed]) for c in cells]
        return replan_attack(db, attack_id, resolved.model_dump(mode="json"), todo)


def _changed(planned: AttackExperiment, wider: AttackExperiment) -> set[str]:
    before, after = planned.model_dump(mode="json"), wider.model_dump(mode="json")
    return {name for name in before if before[name] != after[name]}


def _refuse_other_questions(
    db: Database, planned: AttackExperiment, wider: AttackExperiment, there: dict[Cell, AttackCell]
) -> None:
    """Raises ValueError where the wider plan would have taught or asked the cells that are there of other facts."""
    base = Experiment.from_record(get_run(db, next(iter(there.values())).run).experiment)
    if wider.pool_of(base) != planned.pool_of(base) or wider.readings != planned.readings:
        raise ValueError(
            "other facts or readings would be asked than in the cells that are there: start another attack"
        )
    for cell, its in there.items():
        was = get_run(db, its.run).experiment
        if not planned.run and _but_words(base_experiment(wider, cell.seed).model_dump(mode="json")) != _but_words(
            Experiment.from_record(was).model_dump(mode="json")
        ):
            raise ValueError(f"‘{planned.experiment}’ is no longer the run that was attacked: start another attack")


def _planned(
    db: Database, attack: AttackExperiment, there: Mapping[Cell, AttackCell] | None = None
) -> tuple[AttackExperiment, dict[int, tuple[str, dict[str, Any]]]]:
    """The attack resolved, and for each seed the base run's id (a new one in the queue, unless it was done before or
    one of the cells that are `there` waits for it) and experiment. Raises ValueError."""
    bases: dict[int, tuple[str, dict[str, Any]]] = {}
    for seed in attack.seeds:
        base = _existing(db, attack.run) if attack.run else _new(attack, seed)
        resolved = resolve_attack(attack, base)
        refuse_known(asked_experiment(resolved, base), resolved.max_new_tokens)
        data = base.model_dump(mode="json")
        if attack.run:
            bases[seed] = (attack.run, data)
            continue
        waited_for = next((c.needs for cell, c in (there or {}).items() if cell.seed == seed), "")
        # The page's link from a base run to its attack is the name; the run is an ordinary one.
        run = (
            _if_there(db, waited_for)
            or _done_before(db, data)
            or add_run(db, name=f"{base.name} for {attack.name}", experiment=data, model=base.model, seed=seed)
        )
        bases[seed] = (run.id, data)
    return resolved, bases


def _if_there(db: Database, run_id: str) -> Run | None:
    try:
        return get_run(db, run_id) if run_id else None
    except KeyError:
        return None


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
