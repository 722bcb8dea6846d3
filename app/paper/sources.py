"""Whose figures stand beside the paper's: a study of this lab, or one that was recorded and came with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.shared.departures import otherwise_trained
from app.shared.lab import Lab
from app.shared.recordings import hardware_of, here_now
from engine.execution.studies.recording import command_of, shipped_recordings
from engine.execution.studies.report import update_figures
from engine.models.identity import Here
from engine.models.source import EMBEDDED
from engine.paper.beside import Ours
from engine.paper.claims import ENOUGH_SEEDS
from engine.paper.tables import Table
from engine.studies.study import MODEL, SEED
from storage.runs import ENDED, State
from storage.studies import StoredStudy, list_figures, list_studies, study_counts, study_models, study_training

LISTED = 20


@dataclass(frozen=True)
class Measured:
    """A study on one of its models.

    id: as the address names it. at: when it was recorded, or queued. study: its id in this lab, '' for a recorded one.
    done, total: its runs. seeds: how many of them. here: how a recorded one's model is on this machine. seconds: of
    all runs of a recorded one. method: in how many prompts stage 2 shows a fact, and what of the training is not the
    paper's, in sentences.
    """

    id: str
    name: str
    model: str
    command: str
    at: str
    study: str = ""
    done: int = 0
    total: int = 0
    seeds: int = 1
    busy: bool = False
    here: Here | None = None
    hardware: str = ""
    seconds: float = 0.0
    method: str = ""

    @property
    def whole(self) -> bool:
        """Whether all of it is measured."""
        return self.done == self.total

    @property
    def label(self) -> str:
        """What it is called where one chooses."""
        if not self.study:
            return f"recorded on {self.model}, {self.at[:10]}"
        progress = "" if self.whole else f", {self.done} of {self.total} runs done"
        few = "" if self.seeds >= ENOUGH_SEEDS else f", {self.seeds} seed{'' if self.seeds == 1 else 's'}"
        return f"this lab, {self.model}, {self.at[:10]} ({self.study}){few}{progress}"


class Sources:
    """What can stand beside the paper's tables, found once while a page is drawn."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._found: dict[tuple[str, ...], list[Measured]] = {}
        self._figures: dict[str, Ours] = {}

    def of(self, table: Table) -> list[Measured]:
        """The studies that measure a table: of this lab, newest first, then the recorded ones."""
        if table.studies not in self._found:
            live = [stored for name in table.studies for stored in list_studies(self._lab.db, name=name, limit=LISTED)]
            live.sort(key=lambda stored: stored.created_at, reverse=True)
            self._found[table.studies] = [m for stored in live for m in self._live(stored)] + [
                m for m in sorted(recorded(), key=lambda m: m.model == EMBEDDED) if m.name in table.studies
            ]
        return self._found[table.studies]

    def chosen(self, table: Table, wanted: str) -> Measured | None:
        """The one that is wanted, else the newest of this lab that is whole and has seeds enough, else a recorded one:
        a real model's before the embedded base's, where no other weights are here by its name."""
        found = self.of(table)
        suited = (
            [m for m in found if m.id == wanted]
            or [m for m in found if m.study and m.whole and self._has_seeds(m)]
            or [m for m in found if m.here in ("same", "absent")]
            or [m for m in found if m.study and m.whole]
            or [m for m in found if m.here]
            or [m for m in found if m.done]
        )
        return suited[0] if suited else None

    def ours(self, measured: Measured | None) -> Ours:
        """Its figures."""
        if measured is None:
            return Ours()
        if not measured.study:
            return _recorded_figures(measured.id)
        if measured.id not in self._figures:
            update_figures(self._lab.db, self._lab.home, measured.study)
            figures = list_figures(self._lab.db, measured.study)
            self._figures[measured.id] = Ours(f for f in figures if f.at.get(MODEL, measured.model) == measured.model)
        return self._figures[measured.id]

    def _has_seeds(self, measured: Measured) -> bool:
        """Whether each of its figures has seeds enough: some of its runs may have been deleted."""
        return measured.seeds >= ENOUGH_SEEDS and self.ours(measured).fewest_seeds >= ENOUGH_SEEDS

    def _live(self, stored: StoredStudy) -> list[Measured]:
        counts = study_counts(self._lab.db, stored.id)
        facts: dict[str, Any] = {
            "name": stored.name, "command": command_of(stored), "at": stored.created_at, "study": stored.id,
            "done": counts.get("done", 0), "total": sum(counts.values()),
            "seeds": len(stored.plan.get("axes", {}).get(SEED, [0])),
            "busy": any(State(state) not in ENDED for state in counts),
        }  # fmt: skip
        models = study_models(self._lab.db, stored.id)
        return [
            Measured(
                id=_id(stored.id, place), model=model,
                method=method_of(study_training(self._lab.db, stored.id, model), stored.plan), **facts,
            )
            for place, model in enumerate(models)
        ]  # fmt: skip


def recorded() -> list[Measured]:
    """The recorded studies that came with the lab."""
    return [
        Measured(
            id=_id(file, place), name=recording.name, model=model.name, command=recording.command, at=recording.at,
            done=recording.runs, total=recording.runs, seeds=len(recording.study["axes"].get(SEED, [0])),
            here=here_now(f"study {file} {place}", model.here),
            hardware=hardware_of(recording.environment), seconds=recording.seconds.get("whole", 0.0),
            method=method_of(model.experiment, recording.study),
        )
        for file, recording in shipped_recordings().items()
        for place, model in enumerate(recording.models)
    ]  # fmt: skip


def method_of(experiment: dict[str, Any], plan: dict[str, Any]) -> str:
    """How a study's runs are trained, of one of them; what its axes or methods change is not said."""
    said = []
    shown = experiment.get("stage2", {}).get("prompts")
    if shown and not plan.get("methods") and "stage2.prompts" not in plan.get("axes", {}):
        said.append(f"Stage 2 showed each of its facts in {shown} prompt{'' if shown == 1 else 's'}.")
    said.append(otherwise_trained(experiment))
    return " ".join(filter(None, said))


def _id(name: str, place: int) -> str:
    return f"{name}.{place}" if place else name


@lru_cache(maxsize=16)
def _recorded_figures(wanted: str) -> Ours:
    for file, recording in shipped_recordings().items():
        for place, model in enumerate(recording.models):
            if _id(file, place) == wanted:
                return Ours(recording.figures_of(model.name))
    return Ours()
