"""The threads that put waiting questions to models: what becomes of a question when a server says no, or goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.asking import asker as asker_module
from app.asking.asker import Asker
from app.asking.model_server import ModelServer
from app.asking.submit import ask_text
from app.shared.lab import Lab
from engine.corpus.resolve import resolve
from engine.presets import load_preset
from storage.askings import WAITING, list_columns
from storage.runs import Run, add_run


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def run(lab: Lab) -> Run:
    experiment = resolve(load_preset("quick"))
    return add_run(lab.db, name="quick", experiment=experiment.model_dump(mode="json"), model="embedded", seed=1)


def test_what_waits_while_the_lab_is_stopped_waits_for_the_next_one(
    lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asker_module, "NOT_READY_SECONDS", 0.0)
    server = ModelServer(lab.home, "embedded")
    asking = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"])
    server.stop()
    asker = Asker(lab, server)
    for _ in range(asker_module.MOST_TRIES + 1):
        assert asker.turn(), "the threads go on until the process ends"
    (column,) = list_columns(lab.db, asking)
    assert (column.state, column.error) == (WAITING, None)
