"""Which GPU is meant, by whatever name; simulated by an nvidia-smi of our own, since no test machine has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.server.worker_process import Workers
from engine import hardware
from engine.execution import device_hold
from engine.execution.device_hold import device_held
from engine.execution.failures import PlainError
from engine.hardware import device_key, gpu_gib, gpu_of, nvidia_gpus, serving_gpus
from engine.models import device as device_module
from engine.models.device import choose_device
from engine.models.source import ModelError
from engine.serving.vllm import backend
from storage.database import open_database
from storage.devices import release_device, request_for_run, run_on_device, take_for_server
from storage.processes import ProcessName
from tests.unit.tiny_models import build_qwen2

FIRST, SECOND = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000"


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs of 80 and 40 GB."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '0, {FIRST}, 81920'\necho '1, {SECOND}, 40960'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvidia_gpus.cache_clear()
    yield
    nvidia_gpus.cache_clear()


@pytest.mark.parametrize(
    ("visible", "device", "uuid"),
    [
        (None, "cuda", FIRST),
        (None, "cuda:0", FIRST),
        (None, "cuda:1", SECOND),
        ("1", "cuda", SECOND),
        ("1,0", "cuda:1", FIRST),
        ("GPU-bbbb", "cuda:0", SECOND),
    ],
)
def test_one_gpu_has_one_name(
    gpus: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, uuid: str
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_key(device) == uuid
    assert gpu_gib(device) == {FIRST: 80.0, SECOND: 40.0}[uuid]


def test_what_is_no_gpu_or_not_visible_keeps_its_name(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_of("cuda:1") is None and gpu_gib("cuda:1") == 0
    assert [device_key(name) for name in ("cuda:1", "cpu", "mps")] == ["cuda:1", "cpu", "mps"]


def test_without_nvidia_smi_the_first_gpu_still_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    nvidia_gpus.cache_clear()
    assert device_key("cuda") == device_key("cuda:0") == "cuda:0"
    nvidia_gpus.cache_clear()


def test_two_names_of_one_gpu_are_one_lock(gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db, me = open_database(tmp_path / "home"), ProcessName.of()
    assert request_for_run(db, device_key("cuda:1"), "run", me)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert take_for_server(db, [device_key("cuda")], "server", me) == "run"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert take_for_server(db, [device_key("cuda")], "server", me) is None


def test_each_gpu_has_a_worker_of_its_own(gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROTE_LAB_DEVICE", raising=False)

    def seen() -> list[tuple[str, str | None]]:
        workers = Workers(tmp_path, {"A": "b"})
        return [(worker.name, (worker.environment or {}).get("CUDA_VISIBLE_DEVICES")) for worker in workers]

    assert seen() == [("worker-0", FIRST), ("worker-1", SECOND)]
    for visible, alone in (("1", None), ("", None), ("-1", None)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert seen() == [("worker", alone)]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("ROTE_LAB_DEVICE", "cuda:1")
    assert seen() == [("worker", None)]
    assert list(Workers(tmp_path, None)) == []


def test_a_run_on_several_gpus_holds_them_all(gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second GPU's worker does, which sees no other."""
    lab_has = (next(iter(Workers(tmp_path, {}))).environment or {})["ROTE_LAB_GPUS"]
    monkeypatch.setenv("ROTE_LAB_GPUS", lab_has)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", SECOND)
    monkeypatch.setattr(device_hold, "choose_device", lambda: torch.device("cuda"))
    db, me = open_database(tmp_path / "home"), ProcessName.of()
    assert request_for_run(db, FIRST, "another", me)
    asked = 0

    def wait() -> None:
        nonlocal asked
        asked += 1
        assert run_on_device(db, SECOND) is None, "it takes none before the one that comes first in their order"
        release_device(db, FIRST, "another")

    with device_held(db, "run", 2, wait) as held:
        assert held == (SECOND, FIRST) and asked == 1
        assert [run_on_device(db, gpu) for gpu in held] == ["run", "run"]
        assert take_for_server(db, (FIRST,), "server", me) == "run"
    assert [run_on_device(db, gpu) for gpu in (FIRST, SECOND)] == [None, None]
    with (
        pytest.raises(PlainError, match="trains on 3 devices together, and this machine has 2"),
        device_held(db, "run", 3, wait),
    ):
        pass
    with device_held(db, "run", 1, wait) as held:
        assert held == () and run_on_device(db, SECOND) == "run"


def test_vllm_is_given_the_gpu_that_is_meant(gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_cpu_build", lambda: False)
    folder = build_qwen2(tmp_path)
    assert backend.environment(folder, "cuda:1")["CUDA_VISIBLE_DEVICES"] == SECOND
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert backend.environment(folder, "cuda:1")["CUDA_VISIBLE_DEVICES"] == FIRST
    assert backend.environment(folder, "cuda", nvidia_gpus())["CUDA_VISIBLE_DEVICES"] == f"{FIRST},{SECOND}"


def test_model_servers_may_use_every_gpu_that_is_seen_or_the_one_that_is_named(
    gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_nvidia_gpu", lambda: True)
    monkeypatch.delenv("ROTE_LAB_DEVICE", raising=False)

    def usable() -> list[str]:
        return [gpu.uuid for gpu in serving_gpus()]

    assert usable() == [FIRST, SECOND]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert usable() == [SECOND, FIRST]
    monkeypatch.setenv("ROTE_LAB_DEVICE", "cuda:1")
    assert usable() == [FIRST]
    for device in ("cpu", "cuda:7"):
        monkeypatch.setenv("ROTE_LAB_DEVICE", device)
        assert usable() == []


def test_a_gpu_that_pytorch_cannot_use_is_said_and_never_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module, "has_open_gpu", lambda: True)
    monkeypatch.delenv("ROTE_LAB_DEVICE", raising=False)
    for cuda, words in ((None, "this build of it is for processors"), ("13.0", "driver on your system is too old")):
        monkeypatch.setattr(device_module.torch.version, "cuda", cuda)
        monkeypatch.setattr(device_module.torch.cuda, "init", too_old)
        with pytest.raises(ModelError, match=rf"{words}.*: mend that, or set ROTE_LAB_DEVICE=cpu"):
            choose_device()
    monkeypatch.setenv("ROTE_LAB_DEVICE", "cpu")
    assert choose_device().type == "cpu"


def too_old() -> None:
    """What torch raises."""
    raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update it.")


def test_a_container_without_a_gpu_is_no_machine_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"/proc/driver/nvidia/version"}
    monkeypatch.setattr(hardware.Path, "exists", lambda path: str(path) in there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert hardware.has_nvidia_gpu() and not hardware.has_open_gpu()
    there.add("/dev/nvidiactl")
    assert hardware.has_open_gpu()
