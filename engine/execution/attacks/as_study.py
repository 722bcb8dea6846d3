"""An attack's grid as a study's: its cells as runs with their places on axes, its measurements as pooled figures.

    axes, runs = attack_axes(attack, cells), attack_runs(cells)
    figures = attack_figures(rows)      # of list_attack_results, as many as are wanted

So a page, a chart, a comparison or an export that knows studies knows attacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.attack.defences import defences
from engine.attack.experiment import NO_DEFENCE
from engine.attack.measure import METRICS
from engine.attack.measure import figures as pooled_interval
from engine.evaluation.summary import UNAIDED
from storage.attacks import AttackCell
from storage.studies import StudyFigure, StudyRun

Row = Mapping[str, Any]
# Where a figure stands, about which facts it is, its split and its language.
Question = tuple[tuple[tuple[str, Any], ...], str, str, str]
MAIN = METRICS[0][0]
SETTING, FACTS = "setting", "attack_facts"
# Field of a cell: its axis. A cell that is not trained has no place on them, as it belongs to each.
TRAINED_BY = {"prompts": "prompts", "epochs": "epochs", "learning_rate": "learning_rate", "method": "tuning.method"}
CONTROLS = {"attack": "The attack", "no_stage1": "No stage 1", "neutral": "A neutral reading",
            "nonsense": "A nonsense reading"}  # fmt: skip
ATTACKED = "attacked"  # the kind of its figures
# What a figure is of, as a split: the reading that was asked about by its part in the attack, and the prompts.
HARMFUL, OTHER_HARMFUL = "harmful", "other harmful"


def setting_of(cell: Row) -> str:
    """What a cell is compared as: the attack, one of its controls, or a defence that it meets."""
    if cell["defence"] != NO_DEFENCE:
        known = defences().get(cell["defence"])
        return f"Defence: {known.label if known else cell['defence']}"
    return CONTROLS.get(cell["control"]) or str(cell["control"])


def place_of(cell: Row) -> dict[str, Any]:
    """A cell's values of the axes."""
    facts = cell["attack_facts"]
    trained = {axis: cell[field] for field, axis in TRAINED_BY.items()} if facts else {}
    return {SETTING: setting_of(cell), FACTS: facts, **trained, "seed": cell["seed"]}


def attack_axes(plan: Row, cells: Sequence[AttackCell]) -> dict[str, tuple[Any, ...]]:
    """The axes but the seed's, each with its values in the order of the plan."""
    places = [place_of(cell.cell) for cell in cells]
    planned = {"prompts": "prompts", "epochs": "epochs", "learning_rate": "learning_rates", "tuning.method": "methods"}
    return {
        SETTING: tuple(dict.fromkeys(place[SETTING] for place in places)),
        FACTS: tuple(sorted({place[FACTS] for place in places})),
        **{axis: tuple(plan[name]) for axis, name in planned.items()},
    }


def attack_runs(cells: Iterable[AttackCell]) -> list[StudyRun]:
    """The cells that train or ask, as runs of a study; audits have no place on its axes."""
    return [
        StudyRun(
            cell.run, cell.state, place_of(cell.cell), cell.needs or None, cell.progress, cell.error,
            cell.started_at, cell.finished_at,
        )
        for cell in cells
        if cell.cell["kind"] == "attack"
    ]  # fmt: skip


def asked_of(row: Row, harmful: str) -> str:
    """What a result row is of, as the split of a figure, such as `harmful test`. harmful: the reading of the plan."""
    if not row["role"]:
        return str(row["split"])
    other = row["role"] == HARMFUL and row["reading"] != harmful
    return f"{OTHER_HARMFUL if other else row['role']} {row['split']}"


def attack_figures(rows: Iterable[Row], harmful: str) -> list[StudyFigure]:
    """Generation accuracies pooled over the seeds (and over readings of one part), the fact being the unit.

    rows: as `storage.attacks.list_attack_results` gives them; those of other metrics and of models that were made
    smaller are left out. Where a twin without the key token was not measured, it is taken to be the figure.
    """
    groups: dict[Question, dict[str, list[Row]]] = {}
    for row in _asked_rows(rows):
        groups.setdefault(_question(row, harmful), {}).setdefault(row["metric"], []).append(row)
    return [
        _figure(dict(at), facts, split, language, members[MAIN], members.get(UNAIDED, []))
        for (at, facts, split, language), members in groups.items()
        if MAIN in members
    ]


def hits_by_seed_and_fact(
    rows: Iterable[Row], asked: Sequence[StudyFigure], harmful: str
) -> list[dict[tuple[int, int, str], tuple[float, int]]]:
    """Of each seed and fact (by its place among those asked) the hits and answers that each figure is made of, as
    `engine.studies.compare` wants them. rows, harmful: as for `attack_figures`."""
    groups: dict[Question, list[Row]] = {}
    for row in _asked_rows(rows):
        if row["metric"] == MAIN:
            groups.setdefault(_question(row, harmful), []).append(row)
    return [_summed(groups.get((tuple(sorted(f.at.items())), f.facts, f.split, f.language), ())) for f in asked]


def _asked_rows(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if row["kind"] == "attack" and row["metric"] in (MAIN, UNAIDED) and not row["checkpoint"].endswith("bit"):
            yield row


def _question(row: Row, harmful: str) -> Question:
    at = tuple(sorted((axis, value) for axis, value in place_of(row).items() if axis != "seed"))
    return at, row["facts"], asked_of(row, harmful), row["language"]


def _summed(rows: Iterable[Row]) -> dict[tuple[int, int, str], tuple[float, int]]:
    found: dict[tuple[int, int, str], tuple[float, int]] = {}
    for row in rows:
        for place, (hits, count) in enumerate(row["by_fact"]):
            key = (row["seed"], place, str(row["seed"]))  # taken for other facts with each seed
            before = found.get(key, (0.0, 0))
            found[key] = (before[0] + hits, before[1] + count)
    return found


def _share(rows: Sequence[Row]) -> float:
    return float(sum(row["value"] * row["n"] for row in rows) / sum(row["n"] for row in rows))


def _figure(
    at: dict[str, Any], facts: str, split: str, language: str, rows: list[Row], twins: list[Row]
) -> StudyFigure:
    numbers = pooled_interval(list(_summed(rows).values()), True)
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row)
    seeds = {seed: {"value": _share(own), "run": own[0]["run"]} for seed, own in sorted(by_seed.items())}
    unaided = _share(twins) if twins else numbers["value"]
    return StudyFigure(at, 0, ATTACKED, facts, split, language, unaided=unaided, seeds=seeds, **numbers)
