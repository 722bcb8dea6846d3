"""A claimed run, of either kind, from its log's first line to its stored end."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from sqlite_utils import Database

from engine.execution.attacks.cell import CellExecution
from engine.execution.device_hold import device_held
from engine.execution.failures import explain_failure
from engine.execution.pipeline import RunExecution
from engine.execution.studies.models import forget_models
from engine.execution.studies.report import update_figures
from engine.logs import PLAIN
from engine.training.loop import StopTraining
from storage.folders import run_folder
from storage.runs import LostRunError, Run, State, finish_run

logger = logging.getLogger("engine")


def execute_run(db: Database, home: Path, run: Run) -> State:
    """Carry out a claimed run and store how it ended; returns that state.

    Raises LostRunError when another worker holds the run meanwhile: then nothing more may be written about it.
    """
    folder = run_folder(home, run.id)
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter(PLAIN))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return _execute_and_finish(db, folder, run)
    finally:
        logger.removeHandler(handler)
        handler.close()


def _execute_and_finish(db: Database, folder: Path, run: Run) -> State:
    try:
        execution = CellExecution(db, folder, run) if run.attack else RunExecution(db, folder, run)
        execution.bring_model()
        with device_held(db, run.id, execution.devices, execution.wait_for_device) as execution.gpus:
            figures = execution.go()
    except StopTraining:
        logger.info("cancelled")
        finish_run(db, run.id, run.attempt, State.CANCELLED)
        return State.CANCELLED
    except LostRunError:
        logger.warning("another worker holds this run now, or it was deleted: stopping")
        raise
    except Exception as error:
        logger.exception("the run failed")
        finish_run(db, run.id, run.attempt, State.FAILED, error=explain_failure(error))
        return State.FAILED
    finish_run(db, run.id, run.attempt, State.DONE, headline=figures)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    logger.info("done")
    if run.study:
        try:
            forget_models(db, folder.parent.parent, run.study)
            update_figures(db, folder.parent.parent, run.study)
        except Exception:  # of figures that are made again when somebody looks at them
            logger.exception("the study's figures could not be made")
    return State.DONE
