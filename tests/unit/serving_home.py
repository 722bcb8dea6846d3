"""A lab's home with runs of tiny random models, and an embedded server over it that answers real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn

from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, load_checkpoint, prepare_for_training, save_model
from engine.serving.client import ServerClient
from engine.serving.embedded.server import EmbeddedServer, build_app
from engine.serving.listening import take_port
from engine.serving.served import ServedModel, served_models
from storage.folders import checkpoint_folder, run_folder
from storage.runs import Run, State
from tests.unit.tiny_models import tiny_experiment

CHECKPOINTS = ("memorised@4", "generalised@4")


def add_run(home: Path, run_id: str, model: Path, method: str = "full", **changes: object) -> Run:
    """A run with two checkpoints, each far from the base and from the other."""
    experiment = tiny_experiment(model, tuning={"method": method, "rank": 4, "alpha": 8}, **changes)
    folder = run_folder(home, run_id)
    folder.mkdir(parents=True)
    content = {"id": run_id, "experiment": experiment.model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    for number, name in enumerate(CHECKPOINTS, 1):
        write_checkpoint(home, run_id, name, seed=number)
    return run_row(home, run_id)


def write_checkpoint(home: Path, run_id: str, name: str, seed: int) -> None:
    """A checkpoint with random changes to every weight that its method trains."""
    experiment = Experiment.from_data(run_row(home, run_id).experiment)
    loaded = prepare_for_training(load_base(experiment), experiment)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=chance))
    save_model(loaded, checkpoint_folder(run_folder(home, run_id), name))


def run_row(home: Path, run_id: str) -> Run:
    """The run as the database would have it."""
    experiment = json.loads((run_folder(home, run_id) / "run.json").read_text(encoding="utf-8"))["experiment"]
    nothing: dict[str, Any] = dict.fromkeys(
        ("cloned_from", "started_at", "finished_at", "worker", "lease_until", "error")
    )
    return Run(
        id=run_id, name="tiny", state=State.DONE, experiment=experiment, model=experiment["model"], seed=0,
        created_at="", attempt=1, stalls=0, progress={}, headline={}, environment={}, **nothing,
    )  # fmt: skip


def models_of(home: Path, run_id: str) -> dict[str, ServedModel]:
    """The run's models by checkpoint."""
    return {model.checkpoint: model for model in served_models(home, run_row(home, run_id))}


def reference(home: Path, run_id: str, checkpoint: str) -> LoadedModel:
    """The model as training and evaluation load it."""
    experiment = Experiment.from_data(run_row(home, run_id).experiment)
    if checkpoint == "base":
        return load_base(experiment)
    return load_checkpoint(experiment, checkpoint_folder(run_folder(home, run_id), checkpoint))


@contextmanager
def serving(home: Path, *runs: str, memory: int | None = None) -> Iterator[tuple[ServerClient, EmbeddedServer]]:
    """A server in this process, with a client of it."""
    state = EmbeddedServer(home, runs, memory)
    config = uvicorn.Config(build_app(state), log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    with take_port(0) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with ServerClient(f"http://127.0.0.1:{port}", timeout=60) as client:
                while not server.started and thread.is_alive():
                    thread.join(0.01)
                yield client, state
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
