"""A stage trained by several processes together, one for each device: torchrun's, started and watched from here.

They report each step and each kept epoch in lines of JSON; this process alone writes to the database.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from engine import CODE_ROOT
from engine.execution import saving, together_process
from engine.execution.failures import PlainError
from engine.execution.stage_training import StageTraining
from engine.hardware import cpu_threads
from engine.training.checkpoint import DamagedCheckpoint, TrainingState
from engine.training.loop import StepReport
from storage.folders import log_lines

logger = logging.getLogger("engine")

JOB, OUTPUT = "together.json", "together.txt"
LAST_LINES = 30
GONE_SECONDS = 10.0  # what was killed lets go of its memory first


class ProcessEnded(Exception):
    """A process was killed, or ended without a word."""


def train_together(
    training: StageTraining, begin: Path | None, start: TrainingState | None, *, gpus: tuple[str, ...], mixed: bool
) -> None:
    """Train until the last of the kept epochs is stored, from `start`, or from the checkpoint in `begin`, or (None)
    from the base.

    gpus: their UUIDs, one for each process; on a processor none. Raises PlainError with what a process said of its
    failure, ProcessEnded, DamagedCheckpoint, and whatever telling of a step raises (StopTraining); none is left then.
    """
    job = training.folder / JOB
    description = {
        "experiment": training.experiment.model_dump(mode="json"),
        "home": str(training.folder.parents[1]),
        "stage": training.stage,
        "kept": {str(epoch): str(place) for epoch, place in training.kept.items()},
        "rolling": str(training.rolling),
        "begin": begin and str(begin),
        "start": start and str(start.folder),
        "mixed": mixed,
        "every": saving.RESUME_EVERY_SECONDS,
    }
    job.write_text(json.dumps(description), encoding="utf-8")
    failed: dict[str, Any] = {}
    try:
        with _started(job, training.experiment.devices, gpus) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                if "step" in told:
                    training.on_step(StepReport(**told))
                elif "kept" in told:
                    training.is_kept(told["kept"])
                else:
                    failed = failed or told
            code = process.wait()
        if failed.get("damaged"):
            raise DamagedCheckpoint(failed["damaged"])
        if code:
            _log_last_words(training.folder)
            if "failed" in failed:
                raise PlainError(failed["failed"])
            raise ProcessEnded(f"One of {training.experiment.devices} processes that train together ended")
    finally:
        job.unlink(missing_ok=True)


@contextlib.contextmanager
def _started(job: Path, processes: int, gpus: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    """The launcher of all of them; at the end of the block none is left."""
    environment = dict(os.environ)
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        environment.pop("ROTE_LAB_DEVICE", None)
    else:
        environment |= {"ROTE_LAB_DEVICE": "cpu", "ROTE_LAB_THREADS": str(max(1, cpu_threads() // processes))}
    command = [sys.executable, "-m", together_process.__name__, str(job), "--launch", str(processes)]
    with (job.parent / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output,
            env=environment, cwd=CODE_ROOT, text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        ranks = _descendants(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for rank in ranks:  # torchrun may have put them into sessions of their own
            with contextlib.suppress(psutil.NoSuchProcess):
                rank.kill()
        psutil.wait_procs(ranks, GONE_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def _descendants(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _log_last_words(folder: Path) -> None:
    for line in list(log_lines(folder / OUTPUT))[-LAST_LINES:]:
        logger.error("together: %s", line)
