"""What the Studies page shows a grid of: a study, or an attack, whose cells are the runs of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

from app.shared.lab import Lab
from app.studies.table import Axis
from app.studies.view import (
    ASKED,
    ASKED_MEASURES,
    AT_THE_END,
    ATTACK_ASKED,
    ATTACK_FACTS,
    ATTACK_MEASURES,
    ATTACK_SIZE,
    FACTS,
    FURTHER_MEASURES,
    MEASURES,
    SETTING,
    TOKENS,
    View,
    value_name,
)
from engine.attack.experiment import AttackExperiment
from engine.execution.attacks.as_study import (
    CONTROLS,
    TRAINED_BY,
    asked_of,
    attack_axes,
    attack_figures,
    attack_runs,
    hits_by_seed_and_fact,
    setting_of,
)
from engine.execution.attacks.queue import GRID, widen_attack
from engine.execution.studies.kept import GENERAL_KNOWLEDGE, OF_NO_FACTS, is_kept
from engine.execution.studies.queue import widen_study
from engine.execution.studies.report import compare_figures, study_figures, update_figures
from engine.studies.compare import Comparison, compare
from engine.studies.presets import STUDIES
from engine.studies.study import DEPTH, METHOD, SEED, Study
from storage.attacks import (
    Attack,
    asked_languages,
    attack_counts,
    get_attack,
    list_attack_results,
    list_cells,
    retry_attack,
    stop_attack,
)
from storage.measurements import TRAINING_TOKENS
from storage.studies import (
    ALL_FACTS,
    StoredStudy,
    StudyFigure,
    StudyRun,
    delete_study,
    figure_languages,
    get_study,
    list_figures,
    list_study_runs,
    retry_study,
    stop_study,
    study_counts,
)

Measure = tuple[str, tuple[str, ...], str]  # its label, the checkpoints' kinds, the split
# Beside the measures, where they stand beside each other.
TOKENS_MEASURE = "tokens"
# What an attack asks in no language of its own.
_KNOWN = "own"
# Controls of another reading start where the attack does: that is measured once.
_START_WHERE_IT_DOES = {CONTROLS["neutral"], CONTROLS["nonsense"]}


class Grid(ABC):
    """Runs with their places on axes, and their figures. `stored` names and describes it.

    measures: by name, as in app/studies/view.py; the first is the usual one. facts: which facts may be asked about.
    usual: paths of axes, see `app.studies.table.table_of`. page: where one of its runs is looked at. axes_fields: what
    in its description names the grid.
    """

    measures: ClassVar[Mapping[str, Measure]]
    facts: ClassVar[Mapping[str, str]]
    usual: ClassVar[tuple[str, ...]]
    page: ClassVar[str]
    is_attack: ClassVar[bool]
    axes_fields: ClassVar[tuple[str, ...]]
    recorded = False  # whether it was measured elsewhere, and has no models here

    def __init__(self, lab: Lab, stored: StoredStudy) -> None:
        self.lab, self.stored = lab, stored

    @abstractmethod
    def runs(self) -> list[StudyRun]:
        """Its runs in their order."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """How many runs are in which state."""

    @abstractmethod
    def axes(self, runs: list[StudyRun], figures: list[StudyFigure]) -> list[Axis]:
        """The axes but the seed's."""

    @abstractmethod
    def languages(self) -> tuple[list[str], str]:
        """In which languages anything was asked, and the one that was trained in."""

    @abstractmethod
    def figures(self, measures: Sequence[str], facts: str, language: str) -> list[StudyFigure]:
        """The figures of some measures."""

    @abstractmethod
    def beside(self) -> dict[str, str]:
        """The measures that are shown where what is asked stands beside each other, and their headings."""

    @abstractmethod
    def all_figures(self) -> list[StudyFigure]:
        """Every figure that there is."""

    @abstractmethod
    def compare(self, first: StudyFigure, others: Sequence[StudyFigure]) -> list[Comparison | None]:
        """Each of the other figures against the first, see `engine.studies.compare`."""

    @abstractmethod
    def yaml(self) -> str:
        """Its description."""

    @abstractmethod
    def widen(self, described: str) -> int:
        """Queue what a wider description has more; returns how many runs. Raises ValueError, KeyError, NotAllowed."""

    @abstractmethod
    def change(self, act: str) -> None:
        """Stop it, retry what did not end well, or forget it. Raises KeyError, NotAllowed."""

    def split_of(self, measure: str) -> Measure:
        """A measure with its kinds of checkpoints and its split."""
        return self.measures[measure]

    @property
    def usual_facts(self) -> str:
        """Which facts are looked at where nothing is chosen."""
        return "held_out"

    @property
    def preset(self) -> str:
        """The name under which it comes with the lab, if it does."""
        return ""

    @property
    def command(self) -> str:
        """What runs the same elsewhere."""
        return f"python -m engine {'attack' if self.is_attack else 'study'} {self.preset or 'FILE.yaml'}"

    @property
    def file_name(self) -> str:
        """How files are called in which it is taken away."""
        return f"{'attack' if self.is_attack else 'study'}-{self.stored.id}"

    def measure_of(self, view: View) -> str:
        """The measure that a view wants, or the usual one."""
        return view.measure if view.measure in self.measures else next(iter(self.measures))

    def asked_of(self, view: View, languages: list[str], language: str) -> dict[str, str]:
        """Whose figures a view wants: facts and language. language: the one that was trained in."""
        return {
            "facts": view.facts if view.facts in self.facts else self.usual_facts,
            "language": view.language if view.language in languages else language,
        }

    def asks_beside(self, view: View) -> bool:
        """Whether the columns are what is asked."""
        return view.columns == ASKED


class _StudyGrid(Grid):
    """A study's."""

    measures, facts, usual = MEASURES, FACTS, (DEPTH, METHOD, "stage2.facts")
    page, is_attack, axes_fields = "/results", False, ("axes", "methods", "leave_out")

    def runs(self) -> list[StudyRun]:
        update_figures(self.lab.db, self.lab.home, self.stored.id)
        return list_study_runs(self.lab.db, self.stored.id)

    def counts(self) -> dict[str, int]:
        return study_counts(self.lab.db, self.stored.id)

    def axes(self, runs: list[StudyRun], figures: list[StudyFigure]) -> list[Axis]:
        plan = self.stored.plan["axes"]
        found = [
            Axis(path, tuple({value_name(run.at[path]): run.at[path] for run in runs if path in run.at}.values()))
            for path in (METHOD, *plan)
            if path not in (SEED, DEPTH)
        ]
        depths = [int(value) for value in plan.get(DEPTH, ())] or sorted({f.depth for f in figures} - {0}) or [0]
        # What has no stage 1 is the same at every depth.
        found.append(Axis(DEPTH, tuple(depths), everywhere=True))
        return sorted((axis for axis in found if axis.values), key=lambda axis: len(axis.values) == 1)

    def languages(self) -> tuple[list[str], str]:
        db, study = self.lab.db, self.stored.id
        trained = next((figure.language for figure in list_figures(db, study, split="key")), "en")
        # Not those of the base alone: other languages may be asked of the last checkpoint only.
        return figure_languages(db, study), trained

    def figures(self, measures: Sequence[str], facts: str, language: str) -> list[StudyFigure]:
        db, study, found = self.lab.db, self.stored.id, []
        for _, kinds, split in map(self.split_of, measures):
            asked = {"facts": OF_NO_FACTS if is_kept(split) else facts, "language": language}
            # Tokens are of no facts and no language; general questions are asked in one, whichever is looked at.
            wanted = {TRAINING_TOKENS: {}, GENERAL_KNOWLEDGE: {"facts": OF_NO_FACTS}}.get(split, asked)
            found += list_figures(db, study, kinds, split=split, **wanted)
        return found

    def split_of(self, measure: str) -> Measure:
        return ("", AT_THE_END, TRAINING_TOKENS) if measure == TOKENS_MEASURE else MEASURES[measure]

    def beside(self) -> dict[str, str]:
        db, study = self.lab.db, self.stored.id
        asked = (k for k in FURTHER_MEASURES if list_figures(db, study, AT_THE_END, split=MEASURES[k][2]))
        return ASKED_MEASURES | {name: FURTHER_MEASURES[name] for name in asked} | {TOKENS_MEASURE: TOKENS}

    def all_figures(self) -> list[StudyFigure]:
        return study_figures(self.lab.db, self.lab.home, self.stored.id)

    def compare(self, first: StudyFigure, others: Sequence[StudyFigure]) -> list[Comparison | None]:
        return compare_figures(self.lab.db, self.lab.home, first, others)

    def yaml(self) -> str:
        return Study.from_record(self.stored.plan).to_yaml()

    def widen(self, described: str) -> int:
        return widen_study(self.lab.db, self.stored.id, Study.from_text(described))

    def change(self, act: str) -> None:
        {"stop": stop_study, "retry": retry_study, "forget": delete_study}[act](self.lab.db, self.stored.id)

    @property
    def usual_facts(self) -> str:
        # Methods are compared on all facts: some have none held out.
        return ALL_FACTS if self.stored.plan.get("methods") else "held_out"

    @property
    def preset(self) -> str:
        return self.stored.name if self.stored.name in STUDIES.names() else ""

    def asks_beside(self, view: View) -> bool:
        return view.columns == ASKED or (not view.columns and bool(self.stored.plan.get("methods")))


class _AttackGrid(Grid):
    """An attack's."""

    measures, facts, usual = ATTACK_MEASURES, ATTACK_FACTS, (ATTACK_SIZE, SETTING)
    page, is_attack, axes_fields = "/run", True, GRID

    def __init__(self, lab: Lab, attack: Attack) -> None:
        described = {"description": attack.experiment.get("description", "")}
        super().__init__(lab, StoredStudy(attack.id, attack.name, described, attack.created_at, attack.owner))
        self.plan, self.recorded = attack.experiment, bool(attack.recorded)

    def runs(self) -> list[StudyRun]:
        return attack_runs(list_cells(self.lab.db, self.stored.id))

    def counts(self) -> dict[str, int]:
        return attack_counts(self.lab.db, self.stored.id)

    def axes(self, runs: list[StudyRun], figures: list[StudyFigure]) -> list[Axis]:
        cells = list_cells(self.lab.db, self.stored.id)
        # The largest attack; of the rest the first, of which the page Attack tells its story.
        found = [
            Axis(path, values, everywhere=path in TRAINED_BY.values(), usual=-1 if path == ATTACK_SIZE else 0)
            for path, values in attack_axes(self.plan, cells).items()
        ]
        return sorted(found, key=lambda axis: len(axis.values) == 1)

    def languages(self) -> tuple[list[str], str]:
        asked, trained = (asked_languages(self.lab.db, self.stored.id, split) for split in ("test", "key"))
        return asked, next(iter(trained), "en")

    def figures(self, measures: Sequence[str], facts: str, language: str) -> list[StudyFigure]:
        splits = tuple(ATTACK_MEASURES[name][2] for name in measures)
        cells = list_cells(self.lab.db, self.stored.id)
        measured = hash(tuple((cell.run, cell.finished_at) for cell in cells))
        found = _attack_figures(self.lab, self.stored.id, measured, splits, facts, language)
        settings = {setting_of(cell.cell) for cell in cells} & _START_WHERE_IT_DOES
        starts = [f for f in found if f.at[SETTING] == CONTROLS["attack"] and not f.at[ATTACK_SIZE]]
        return found + [replace(f, at=f.at | {SETTING: name}) for f in starts for name in settings]

    def beside(self) -> dict[str, str]:
        return ATTACK_ASKED

    def all_figures(self) -> list[StudyFigure]:
        return attack_figures(list_attack_results(self.lab.db, self.stored.id), self.plan["reading"])

    def compare(self, first: StudyFigure, others: Sequence[StudyFigure]) -> list[Comparison | None]:
        rows = list_attack_results(self.lab.db, self.stored.id, split=first.split.rpartition(" ")[2])
        measured = [f if f.at[ATTACK_SIZE] or f.at[SETTING] not in _START_WHERE_IT_DOES
                    else replace(f, at=f.at | {SETTING: CONTROLS["attack"]}) for f in (first, *others)]  # fmt: skip
        before, *after = hits_by_seed_and_fact(rows, measured, self.plan["reading"])
        # Attacks of other sizes were taught other facts: nothing to pair.
        taught = first.facts == "trained"
        fair = [not taught or other.at[ATTACK_SIZE] == first.at[ATTACK_SIZE] for other in others]
        return compare(before, [hits if can else {} for hits, can in zip(after, fair, strict=True)])

    def yaml(self) -> str:
        return AttackExperiment.from_record(self.plan).to_yaml()

    def widen(self, described: str) -> int:
        return widen_attack(self.lab.db, self.stored.id, AttackExperiment.from_text(described))

    def change(self, act: str) -> None:
        change = {"stop": stop_attack, "retry": retry_attack}.get(act)
        if change is not None:  # an attack is deleted on its own page
            change(self.lab.db, self.stored.id)


@lru_cache(maxsize=32)
def _attack_figures(
    lab: Lab, attack: str, measured: int, splits: tuple[str, ...], facts: str, language: str
) -> list[StudyFigure]:
    """An attack's figures of some splits. measured: another number whenever its cells have measured more."""
    rows: list[dict[str, Any]] = []
    for split in dict.fromkeys(name.rpartition(" ")[2] for name in splits):
        asked = {"split": split} if split == _KNOWN else {"split": split, "language": language}
        rows += list_attack_results(lab.db, attack, **asked)
    harmful = get_attack(lab.db, attack).experiment["reading"]
    wanted = (row for row in rows if row["facts"] in (facts, _KNOWN) and asked_of(row, harmful) in splits)
    return attack_figures(wanted, harmful)


def grid_of(lab: Lab, name: str) -> Grid:
    """The grid of a study or an attack, by its id. Raises KeyError."""
    try:
        return _StudyGrid(lab, get_study(lab.db, name))
    except KeyError:
        return _AttackGrid(lab, get_attack(lab.db, name))
