"""Studies: grids of ordinary runs (`runs.study`), each with its place on the axes (`runs.cell`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from sqlite_utils import Database

from storage.database import write
from storage.grids import (
    STUDY,
    GridRun,
    add_grid,
    changing,
    grid_counts,
    read_runs,
    replan_grid,
    retry_grid,
    stop_grid,
)
from storage.runs import State


@dataclass(frozen=True)
class StoredStudy:
    """One study: `plan` is its description as plain data. owner: the account that started it, None for nobody's."""

    id: str
    name: str
    plan: dict[str, Any]
    created_at: str
    owner: str | None = None


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: its id and state, where it stands (`at`: a value for each axis), and what it waits for."""

    run: str
    state: State
    at: dict[str, Any]
    needs: str | None
    progress: dict[str, Any]
    error: str | None
    started_at: str | None
    finished_at: str | None


ALL_FACTS = "all"
_CHOICE = " choice"


def choice_of(split: str) -> str:
    """What a study calls the multiple choice of a split: `reversal choice`."""
    return split + _CHOICE


def is_choice(split: str) -> bool:
    """Whether a figure's split is the multiple choice of one."""
    return split.endswith(_CHOICE)


@dataclass(frozen=True)
class StudyFigure:
    """A generation accuracy of a study, pooled over its seeds.

    at: the values of the axes but the seed's. depth: the epoch of stage 1; 0 without it. kind: base, context, memorised
    or generalised. facts: held_out, trained or all. low, high: the 95 % interval, facts being the unit. unaided:
    without answers that say a key token before the object. n: answers; n_facts: facts, of all seeds, those that are the
    same in each counted once. seeds: each seed's own `value` and `run`.
    Of a multiple choice (`choice_of` its split) the value is the share of truths that rank first; chance: what guessing
    would reach there, None elsewhere.
    Of how prompts are represented (`delta_cosine natural`, `key_cosine test`, …) n are prompts, and nothing is unaided.
    Of what is still known of what the base knew (`general knowledge`, `base text`) `facts` is none, n are questions, or
    tokens of the base's own text, and n_facts questions or texts, the same with every seed.
    Of the split `training_tokens` the value is none of answers, but how many tokens were trained on for each fact; low
    and high are the least and the most of a seed, n the runs.
    """

    at: dict[str, Any]
    depth: int
    kind: str
    facts: str
    split: str
    language: str
    value: float
    low: float
    high: float
    unaided: float
    n: int
    n_facts: int
    seeds: dict[int, dict[str, Any]]
    chance: float | None = None


@dataclass(frozen=True)
class NewRun:
    """A run to be queued.

    memorises: equal for those that share stage 1; those wait for the first of them that makes their depths, too.
    begins: equal for those that ask the same base about the same facts. depths: the epochs of stage 1 that are kept.
    """

    name: str
    experiment: dict[str, Any]
    at: dict[str, Any]
    memorises: str
    begins: str
    depths: tuple[int, ...] = ()


class KnownRun(NamedTuple):
    """A run that a study has already, and where it stands now."""

    run: str
    at: dict[str, Any]
    depths: tuple[int, ...] = ()


# By what it memorises: the runs of a study that make stage 1, and the depths that are there after each of them.
_Makers = dict[str, list[tuple[str, frozenset[int]]]]


def add_study(db: Database, *, name: str, plan: dict[str, Any], runs: Iterable[NewRun]) -> str:
    """Queue a study and its runs. Returns its id. Raises NotAllowed as `add_run`."""
    makers: _Makers = {}
    return add_grid(db, STUDY, name=name, plan=plan, runs=[_queued(run, makers) for run in runs])


def _queued(new: NewRun, makers: _Makers) -> GridRun:
    """The run for the queue; it is added to the makers where none of them makes what it needs of stage 1. Then it
    waits for the last of them: after it, whatever any of them made is there."""
    cell = {"at": new.at, "memorises": new.memorises, "begins": new.begins}
    known, depths = makers.setdefault(new.memorises, []), frozenset(new.depths)
    needs = next((run for run, made in known if depths <= made), None)
    run = GridRun(new.name, new.experiment, new.experiment["seed"], cell, needs or (known[-1][0] if known else None))
    if needs is None:
        known.append((run.id, depths.union(*(made for _, made in known))))
    return run


def replan_study(db: Database, study: str, plan: dict[str, Any], runs: Iterable[KnownRun | NewRun]) -> int:
    """Give a study a wider plan. Its runs in their order: those that are there, with where they stand now, as there may
    be more axes, and new ones, which are queued. Returns how many are new."""
    order = list(runs)
    makers = _makers(db, study, [run for run in order if isinstance(run, KnownRun)])
    planned = [_queued(run, makers) if isinstance(run, NewRun) else (run.run, {"at": run.at}) for run in order]
    return replan_grid(db, STUDY, study, plan, planned)


def _makers(db: Database, study: str, known: Iterable[KnownRun]) -> _Makers:
    depths = {run.run: frozenset(run.depths) for run in known}
    memorises = "json_extract(cell, '$.memorises') as memorises"
    makers: _Makers = {}
    # In the order in which they were queued: none waits for a later one.
    for row in db.query(f"select id, needs, {memorises} from runs where study = ? order by rowid", [study]):
        before = makers.setdefault(row["memorises"], [])
        waits_for = next((made for run, made in before if run == row["needs"]), frozenset())
        if (own := depths.get(row["id"])) is not None and not (row["needs"] and own <= waits_for):
            before.append((row["id"], own | waits_for))
    return makers


def get_study(db: Database, study: str) -> StoredStudy:
    """One study. Raises KeyError."""
    for row in db.query("select * from studies where id = ?", [study]):
        return _study(row)
    raise KeyError(study)


def list_studies(db: Database, *, limit: int = 50, name: str | None = None) -> list[StoredStudy]:
    """Studies, all or those of a name, newest first."""
    sql = "select * from studies where :name is null or name = :name order by created_at desc, rowid desc limit :limit"
    return [_study(row) for row in db.query(sql, {"name": name, "limit": limit})]


def study_models(db: Database, study: str) -> list[str]:
    """The models of a study's runs in the order of its plan."""
    sql = "select model from runs where study = ? group by model order by min(cell_place)"
    return [row["model"] for row in db.query(sql, [study])]


def study_training(db: Database, study: str, model: str) -> dict[str, Any]:
    """How a study trains one of its models, of its first run: the experiment's `stage1`, `stage2` and `model_text`."""
    parts = ", ".join(f"'{part}', json_extract(experiment, '$.{part}')" for part in ("stage1", "stage2", "model_text"))
    sql = f"select json_object({parts}) from runs where study = ? and model = ? order by cell_place limit 1"
    row = db.execute(sql, [study, model]).fetchone()
    found = json.loads(row[0]) if row else {}
    return {part: value for part, value in found.items() if value is not None}


def _study(row: dict[str, Any]) -> StoredStudy:
    return StoredStudy(**{**row, "plan": json.loads(row["plan"])})


def list_study_runs(db: Database, study: str) -> list[StudyRun]:
    """The runs of a study in the order of its plan."""
    # What they memorise and begin with is long, and wanted by nobody here.
    rows = read_runs(db, STUDY, study, "json_extract(cell, '$.at')")
    return [StudyRun(at=row.pop("cell"), **{k: v for k, v in row.items() if k != "headline"}) for row in rows]


def done_like(db: Database, study: str, key: str, value: str, checkpoints: Collection[str] | None = None) -> list[str]:
    """The done runs of a study whose `memorises` or `begins` is this, the oldest first.

    checkpoints: only those that have figures of one of these.
    """
    sql = "select id from runs where study = ? and state = 'done' and json_extract(cell, ?) = ?"
    if checkpoints is not None:
        marks = ", ".join("?" * len(checkpoints))
        sql += f" and exists (select 1 from results where run = runs.id and checkpoint in ({marks}))"
    asked = [study, f"$.{key}", value, *(checkpoints or ())]
    return [row["id"] for row in db.query(f"{sql} order by finished_at", asked)]


@dataclass(frozen=True)
class StudyModels:
    """Whose models a study's run has: its seed, and what it memorised (`NewRun.memorises`)."""

    run: str
    state: State
    seed: int
    memorises: str


def list_models(db: Database, study: str) -> list[StudyModels]:
    """The runs of a study as owners of models."""
    sql = "select id as run, state, seed, json_extract(cell, '$.memorises') as memorises from runs where study = ?"
    return [StudyModels(**{**row, "state": State(row["state"])}) for row in db.query(sql, [study])]


def group_of(at: dict[str, Any], seed: str) -> str:
    """The name of the group of runs that differ in their seed alone. seed: the axis that is left out."""
    return json.dumps({path: value for path, value in at.items() if path != seed}, sort_keys=True)


def pooled_groups(db: Database, study: str) -> dict[str, list[str]]:
    """Of which runs the figures of each group are."""
    rows = db.query("select at, runs from study_groups where study = ?", [study])
    return {row["at"]: json.loads(row["runs"]) for row in rows}


def replace_figures(db: Database, study: str, group: str, runs: list[str], figures: Iterable[StudyFigure]) -> None:
    """Store a group's figures, and of which runs they are, in place of the older ones."""
    with write(db):
        db.execute("delete from study_groups where study = ? and at = ?", [study, group])
        db.table("study_groups").insert({"study": study, "at": group, "runs": json.dumps(runs)})
        db.table("study_figures").insert_all(
            {**vars(figure), "study": study, "at": group, "seeds": json.dumps(figure.seeds)} for figure in figures
        )


def list_figures(db: Database, study: str, kinds: Sequence[str] = (), **asked: str) -> list[StudyFigure]:
    """The figures of a study. kinds: only of these; asked: only those of these `facts`, `split` or `language`."""
    wanted = "".join(f" and {name} = :{name}" for name in ("facts", "split", "language") if name in asked)
    if kinds:
        asked |= {f"kind{i}": kind for i, kind in enumerate(kinds)}
        wanted += f" and kind in ({', '.join(f':kind{i}' for i in range(len(kinds)))})"
    columns = ", ".join(field.name for field in fields(StudyFigure))
    rows = db.query(
        f"select {columns} from study_figures where study = :study{wanted} order by at, depth",
        {"study": study, **asked},
    )
    return [
        StudyFigure(
            **{**row, "at": json.loads(row["at"]), "seeds": {int(k): v for k, v in json.loads(row["seeds"]).items()}}
        )
        for row in rows
    ]


def figure_languages(db: Database, study: str) -> list[str]:
    """The languages in which a study asked anything at all, at whichever checkpoint."""
    sql = "select distinct language from study_figures where study = ? and language != '' order by language"
    return [row["language"] for row in db.query(sql, [study])]


def study_counts(db: Database, study: str) -> dict[str, int]:
    """How many of a study's runs are in which state."""
    return grid_counts(db, STUDY, study)


def retry_study(db: Database, study: str) -> None:
    """Queue those runs again that failed or were cancelled. Raises KeyError, and NotAllowed for somebody else's, and
    as `add_run`."""
    retry_grid(db, STUDY, study)


def stop_study(db: Database, study: str) -> None:
    """Cancel what is queued, ask what runs to stop. Raises KeyError, and NotAllowed for somebody else's."""
    stop_grid(db, STUDY, study)


def delete_study(db: Database, study: str) -> None:
    """Forget the study; its runs stay, as runs of their own. Raises KeyError, and NotAllowed for somebody
    else's."""
    with changing(db, STUDY, "forgot", study):
        db.execute("delete from studies where id = ?", [study])
