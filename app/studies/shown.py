"""A study as a view shows it: its runs, the figures of the measure, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass

from app.shared.lab import Lab
from app.studies.table import Table, asked_of, table_of
from app.studies.view import View
from engine.execution.studies.report import update_figures
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
    languages = sorted({figure.language for figure in list_figures(lab.db, study.id, kind="base", split="train")})
    trained = next((f.language for f in list_figures(lab.db, study.id, split="key")), "en")
    asked = asked_of(view, languages, trained)
    figures = list_figures(lab.db, study.id, **asked)
    return Shown(study, runs, languages, asked, figures, table_of(study, runs, figures, view))
