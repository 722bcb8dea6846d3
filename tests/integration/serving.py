"""What the tests of model servers share: trained runs, a lab in a process of its own, what a server left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.execution.execute import execute_run
from engine.serving.served import ServedModel, served_models
from storage.runs import Run, claim_run, get_run, list_runs
from tests.integration.lab import ROOT, Lab
from tests.once import made_once, shared_folder

# The preset's own training, with next to no evaluation: that is tested elsewhere.
TRAIN_ONLY = [
    "evaluation.languages=[en]",
    "evaluation.facts=2",
    "evaluation.prompts=1",
    "evaluation.choice.facts=1",
    "evaluation.choice.prompts=1",
    "evaluation.max_new_tokens=8",  # as many as the longest object has
    "evaluation.probe_facts=0",
]
# Two epochs, so that the last is not the only one.
KEPT = "stage1.checkpoint_epochs=[3, 20]"


def trained(lab: Lab, preset: str, *overrides: str) -> Run:
    """A run of the preset, carried out in this process."""
    queued = lab.queue([*TRAIN_ONLY, *overrides], preset=preset)
    claimed = claim_run(lab.db, "test", 3600, queued.id)
    assert claimed is not None
    execute_run(lab.db, lab.home, claimed)
    run = get_run(lab.db, queued.id)
    assert run.state == "done", run.error
    return run


def lab_with_trained(made: Path, home: Path, preset: str, *overrides: str) -> tuple[Lab, Run]:
    """A lab of one's own in `home` with a trained run: the copy of one that is trained once, in the folder `made`."""

    def make(folder: Path) -> None:
        lab = Lab(folder)
        trained(lab, preset, *overrides)
        lab.close()
        lab.db.close()

    shutil.copytree(made_once(made, make), home, dirs_exist_ok=True)
    lab = Lab(home)
    return lab, get_run(lab.db, list_runs(lab.db)[0].id)


def lab_with_adapters(factory: pytest.TempPathFactory, home: Path) -> tuple[Lab, Run]:
    """The same with the preset of adapters, trained once for all test processes; it keeps epochs 3 and 20."""
    return lab_with_trained(shared_folder(factory) / "adapters", home, "quick-lora", KEPT)


def models_by_name(lab: Lab, run: Run) -> dict[str, ServedModel]:
    """The run's models by their checkpoint: `base`, `memorised@20`, …"""
    return {model.checkpoint: model for model in served_models(lab.home, run)}


# A lab that has a server ready, says so, and waits to be killed.
_LAB = """
import sys, time
from pathlib import Path
from engine.serving.served import served_model
from engine.serving.processes.supervisor import Supervisor
from storage.database import open_database
from storage.runs import get_run
home, run, backend = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
supervisor = Supervisor(home, backend)
supervisor.start()
for checkpoint in sys.argv[4:]:
    place = supervisor.place(served_model(home, get_run(open_database(home), run), checkpoint))
print(place.url, flush=True)
time.sleep(3600)
"""


def lab_with_server(lab: Lab, run: Run, backend: str, *checkpoints: str) -> tuple[subprocess.Popen[str], str]:
    """A process with a supervisor of its own that serves the checkpoints; and the server's address."""
    command = [sys.executable, "-c", _LAB, str(lab.home), run.id, backend, *checkpoints]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def server_processes(home: Path) -> list[str]:
    """Command lines of everything that belongs to model servers of a home, vLLM's renamed workers included."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        ours = str(home) in line and ("engine.serving." in line or "vllm.entrypoints" in line)
        renamed = line.startswith("VLLM::") and str(home) in _open_files(process)
        if (ours or renamed) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


def _open_files(process: psutil.Process) -> str:
    """vLLM's workers hide their command line; their output goes to the log in the home."""
    try:
        return str(Path(f"/proc/{process.pid}/fd/1").readlink())
    except OSError:
        return ""
