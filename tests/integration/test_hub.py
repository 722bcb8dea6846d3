"""A run whose model lies on the hub: the worker downloads it, is killed meanwhile, stopped, and goes on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.models.hub import is_fetched
from storage.runs import State, request_stop, retry_run
from tests.integration.lab import Lab, wait_until
from tests.loopback_hub import Hub, loopback_hub, made_large
from tests.unit.tiny_models import build_qwen2

NAME = "someone/tiny"
SMALL = [
    f"model={NAME}",
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 12}}]",
    "stage1.epochs=2",
    "stage2.facts=6",
    "evaluation={languages: [en], facts: 4, prompts: 2, max_new_tokens: 20, choice: {facts: 2, prompts: 1}}",
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A slow hub with one model, and an empty cache."""
    folder = build_qwen2(tmp_path, max_position_embeddings=512)
    with loopback_hub({NAME: made_large(folder)}) as found:
        cache = str(tmp_path / "cache")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
        for name, value in {"HF_HUB_CACHE": cache, "HF_ENDPOINT": found.address, "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        found.bytes_a_second = 10_000_000
        yield found


def downloads(lab: Lab, run: str) -> bool:
    """Whether some of the model's bytes have come."""
    progress = lab.run(run).progress
    return progress.get("stage") == "fetching" and progress["part"][0] > 0


def downloaders(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that download for a worker."""
    children = psutil.Process(worker.pid).children(recursive=True)
    return [child for child in children if "engine.models.hub" in child.cmdline()]


def test_stopped_and_retried_it_is_downloaded_and_done(lab: Lab, hub: Hub) -> None:
    run = lab.queue(SMALL)
    worker = lab.worker()
    wait_until(lambda: downloads(lab, run.id), "bytes of the model")
    told = lab.run(run.id).progress
    assert told["message"].startswith("Downloading the model: ") and told["message"].endswith(" MB")
    request_stop(lab.db, run.id)
    assert lab.wait_for_end(run.id).state is State.CANCELLED
    assert not is_fetched(NAME) and downloaders(worker) == []
    hub.bytes_a_second = 0
    retry_run(lab.db, run.id)
    ended = lab.wait_for_end(run.id)
    assert ended.state is State.DONE, ended.error
    assert is_fetched(NAME)


@pytest.mark.parametrize("killed", ["worker", "training", "download"])
def test_whatever_is_killed_it_goes_on(lab: Lab, hub: Hub, killed: str) -> None:
    run = lab.queue(SMALL)
    worker = lab.worker()
    wait_until(lambda: downloads(lab, run.id), "bytes of the model")
    (downloader,) = downloaders(worker)
    training = lab.training_process(worker)
    assert training is not None
    process = {"worker": psutil.Process(worker.pid), "training": training, "download": downloader}[killed]
    process.send_signal(signal.SIGKILL)
    psutil.wait_procs([downloader], timeout=20)
    assert not downloader.is_running(), "the download outlived what it was for"
    hub.bytes_a_second = 0
    if killed == "worker":
        worker.wait()
        lab.worker()
    ended = lab.wait_for_end(run.id)
    assert ended.state is State.DONE, ended.error


def test_a_gated_model_fails_in_a_sentence_and_runs_once_there_is_a_token(
    lab: Lab, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_right"
    run = lab.queue(SMALL)
    assert lab.worker("--once").wait() == 0
    ended = lab.run(run.id)
    assert ended.state is State.FAILED
    assert f"‘{NAME}’ is gated: accept its terms on {hub.address}/{NAME}, then start the lab" in (ended.error or "")
    hub.bytes_a_second = 0
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    retry_run(lab.db, run.id)
    assert lab.worker("--once").wait() == 0
    assert lab.run(run.id).state is State.DONE
    log = (lab.home / "runs" / run.id / "log.txt").read_text(encoding="utf-8")
    assert "hf_right" not in log


def test_the_device_is_free_while_a_model_is_downloaded(lab: Lab, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTE_LAB_SHARE_DEVICE", "no")
    run = lab.queue(SMALL)
    lab.worker()
    wait_until(lambda: downloads(lab, run.id), "bytes of the model")
    assert list(lab.db["devices"].rows) == []
    hub.bytes_a_second = 0
    wait_until(lambda: list(lab.db["devices"].rows), "the device to be taken")
    assert lab.wait_for_end(run.id).state is State.DONE
    assert list(lab.db["devices"].rows) == []
