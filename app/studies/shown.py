"""A study as a view shows it: its runs, the figures of the measure, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass

from app.shared.lab import Lab
from app.studies.table import Table, asked_of, asks_beside, table_of
from app.studies.view import ASKED_MEASURES, AT_THE_END, MEASURES, REASONING_MEASURES, View
from engine.execution.studies.report import update_figures
from storage.measurements import TRAINING_TOKENS
from storage.studies import StoredStudy, StudyFigure, StudyRun, list_figures, list_study_runs


@dataclass(frozen=True)
class Shown:
    """What is shown. languages: in which anything was asked; asked: which figures they are (`asked_of`)."""

    study: StoredStudy
    runs: list[StudyRun]
    languages: list[str]
    asked: dict[str, str]
    figures: list[StudyFigure]
    table: Table


def shown_of(lab: Lab, study: StoredStudy, view: View) -> Shown:
    """What the view shows of the study, as it is now."""
    update_figures(lab.db, lab.home, study.id)
    runs = list_study_runs(lab.db, study.id)
    languages = sorted({figure.language for figure in list_figures(lab.db, study.id, ["base"], split="train")})
    trained = next((f.language for f in list_figures(lab.db, study.id, split="key")), "en")
    asked = asked_of(study, view, languages, trained)
    beside = asks_beside(study, view)
    figures = list_figures(lab.db, study.id, AT_THE_END, split=TRAINING_TOKENS) if beside else []
    for measure in (*ASKED_MEASURES, *REASONING_MEASURES) if beside else [view.measure]:
        _, kinds, split = MEASURES[measure]
        figures += list_figures(lab.db, study.id, kinds, split=split, **asked)
    return Shown(study, runs, languages, asked, figures, table_of(study, runs, figures, view))
