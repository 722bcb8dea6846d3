"""A run of a cluster whose model is another run's checkpoint: that goes along, and the machine needs no more of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from engine.cluster.needs import units_of
from engine.cluster.parts import parts_of
from engine.cluster.private_lab import PrivateLab
from engine.commands.run import queue_experiment
from engine.corpus.resolve import resolve
from engine.execution.later import later_experiment
from engine.experiment import Experiment
from engine.models.source import CARRIED_HOME
from storage.carrying import rows_to_carry
from storage.runs import claim_run
from tests.integration.kill_runs import SMALLEST
from tests.integration.lab import PATIENCE_SECONDS, Lab


def test_facts_that_come_later_are_memorised_where_the_lab_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROTE_LAB_HOME", str(tmp_path / "machine"))
    monkeypatch.setenv(CARRIED_HOME, "")  # what is set there ends with the test
    lab = Lab(tmp_path / "home")
    first = lab.queue(SMALLEST)
    assert lab.worker("--once").wait() == 0
    queue_experiment(lab.db, resolve(later_experiment(lab.home, lab.run(first.id))))
    run = claim_run(lab.db, "owner", PATIENCE_SECONDS)
    assert run is not None
    rows, experiment = rows_to_carry(lab.db, run), Experiment.from_record(run.experiment)

    machine, said = PrivateLab(), list[dict[str, Any]]()
    try:
        for unit in units_of(lab.db, lab.home, run, experiment):
            for part in parts_of(lab.home, unit):
                machine.receive(part)
        lab.close()
        lab.home.rename(tmp_path / "out of reach")
        machine.begin(rows, run.id, {}, str(lab.home.resolve()))
        end = time.monotonic() + PATIENCE_SECONDS
        while not (said and said[-1]["over"]):
            assert time.monotonic() < end, said
            said.append(machine.news())
            time.sleep(0.1)
    finally:
        machine.close()

    row = [news["letter"]["row"] for news in said if news.get("letter")][-1]
    assert (row["state"], row["error"]) == ("done", None)
    came = [part for news in said for part in news["parts"] if part.get("unit", "").endswith("run.json")]
    assert json.loads(came[-1]["data"])["experiment"]["model"] == experiment.model
