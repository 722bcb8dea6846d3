"""Three people ask models that do not fit on a GPU together, and models that several GPUs hold only together: the real
supervisor, over pretended vLLM processes."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine import hardware
from engine.hardware import nvidia_gpus
from engine.serving.client import ServerClient, ServerUnreachable, ServingError
from engine.serving.processes import room
from engine.serving.processes.supervisor import DeviceBusy, Supervisor
from engine.serving.served import ServedModel
from engine.serving.vllm import backend
from storage.database import open_database
from storage.devices import device_holds, release_device, request_for_run
from storage.processes import ProcessName
from storage.servers import list_servers
from tests.integration.lab import Lab, wait_until

PRETENDED = Path(__file__).with_name("pretended_vllm.py")
START_SECONDS = 0.5
QUESTIONS = 4
GIB = 2**30


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pretended servers write down that they live; the GPU has 80 GiB."""
    folder = tmp_path / "book"
    folder.mkdir()
    gpus_are(tmp_path, "GPU-pretended, 81920")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("ROTE_LAB_DEVICE", raising=False)
    monkeypatch.setattr(backend, "installed", lambda: "0.32.0")
    for module in (backend, hardware):
        monkeypatch.setattr(module, "has_nvidia_gpu", lambda: True)
    real = backend.command

    def command(*words: Any, **options: Any) -> list[str]:
        return [sys.executable, str(PRETENDED), str(folder), str(START_SECONDS), *real(*words, **options)[3:]]

    monkeypatch.setattr(backend, "command", command)
    monkeypatch.setattr(room, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(room, "TURN_SECONDS", 2.0)
    return folder


def gpus_are(folder: Path, *gpus: str) -> None:
    """An nvidia-smi in the folder that tells of these, each a UUID and its MiB."""
    lines = "".join(f"echo '{index}, {gpu}'\n" for index, gpu in enumerate(gpus))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (folder / "nvidia-smi").chmod(0o755)
    nvidia_gpus.cache_clear()


@pytest.fixture
def supervisor(tmp_path: Path, book: Path) -> Iterator[Supervisor]:
    lab = Lab(tmp_path / "home")
    made = Supervisor(lab.home, "vllm")
    yield made
    made.stop()
    nvidia_gpus.cache_clear()
    assert list_servers(lab.db) == []
    lab.close()


def full_model(supervisor: Supervisor, name: str, gib: int, heads: int = 40) -> ServedModel:
    """A full checkpoint whose weights say that they are so large, by default with as many heads as Qwen2.5-14B."""
    folder = supervisor.home / "runs" / name / "checkpoints" / "generalised@1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": heads, "num_key_value_heads": 8}))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(gib * GIB)
    prepared = supervisor.home / "prepared" / "key"
    return ServedModel(
        f"{name}/generalised@1", name, "generalised@1", "full", folder, prepared, folder / "tokenizer.json"
    )


def asks(supervisor: Supervisor, model: ServedModel, answers: list[str], questions: int = QUESTIONS) -> None:
    """A person who asks one question after the other, and again where the server left in between."""
    for _ in range(questions):
        while True:
            place = supervisor.place(model, timeout=60)
            try:
                with ServerClient(place.url) as client:
                    answers.append(client.complete(place.model, [[1, 2]], max_tokens=1).model)
                break
            except ServerUnreachable:
                continue


# Of 14B, 7B and 1.5B: how many servers of that size fit beside each other.
@pytest.mark.parametrize(("gib", "together"), [(28, 2), (15, 3), (3, 3)], ids=["14B", "7B", "1.5B"])
def test_three_people_are_all_answered(supervisor: Supervisor, book: Path, gib: int, together: int) -> None:
    models = [full_model(supervisor, f"r{place}", gib) for place in range(3)]
    answers: list[list[str]] = [[] for _ in models]
    people = [
        threading.Thread(target=asks, args=(supervisor, model, mine), daemon=True)
        for model, mine in zip(models, answers, strict=True)
    ]
    began = time.monotonic()
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    took = time.monotonic() - began
    assert [len(mine) for mine in answers] == [QUESTIONS] * 3, "somebody was not answered"
    assert [set(mine) for mine in answers] == [{model.name} for model in models]
    assert not (book / "wrong.txt").exists(), (book / "wrong.txt").read_text()
    starts = len((book / "starts.txt").read_text().splitlines())
    assert starts <= (3 if together == 3 else 3 * QUESTIONS), "servers were started in vain"
    print(f"\n{gib} GiB: {starts} starts, {took:.1f} s for {3 * QUESTIONS} answers")


def test_a_server_that_answers_is_not_ended(
    supervisor: Supervisor, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TURN_SECONDS", 0.0)
    first, second, third = (full_model(supervisor, f"r{place}", 28) for place in range(3))
    answers: list[str] = []
    for model in (first, second):
        asks(supervisor, model, answers, questions=1)
    stop, unreachable = threading.Event(), []

    def keeps_asking() -> None:
        place = supervisor.place(first)
        with ServerClient(place.url) as client:
            while not stop.is_set():
                try:
                    client.complete(place.model, [[1]], max_tokens=1)
                except ServerUnreachable as error:
                    unreachable.append(str(error))
                    return

    busy = [threading.Thread(target=keeps_asking, daemon=True) for _ in range(3)]  # never idle for a moment
    for thread in busy:
        thread.start()
    time.sleep(3 * START_SECONDS / 5)
    asks(supervisor, third, answers, questions=1)
    stop.set()
    for thread in busy:
        thread.join(20)
    assert unreachable == [] and answers[-1] == third.name
    assert not (book / "wrong.txt").exists()


def test_training_does_not_wait_for_a_server_that_starts(
    supervisor: Supervisor, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "START_SECONDS", 8.0)
    model = full_model(supervisor, "r0", 28)
    assert supervisor.place_now(model) is None
    db, me = open_database(supervisor.home), ProcessName.of()
    wait_until(lambda: device_holds(db, "GPU-pretended"), "the server to hold the GPU")
    began = time.monotonic()
    wait_until(lambda: request_for_run(db, "GPU-pretended", "run", me), "the GPU for a run")
    assert time.monotonic() - began < 6, "the start takes eight seconds"
    monkeypatch.setattr(sys.modules[__name__], "START_SECONDS", 0.5)
    release_device(db, "GPU-pretended", "run")

    def placed() -> bool:
        with suppress(DeviceBusy):
            return supervisor.place_now(model) is not None
        return False

    wait_until(placed, "the server to come back")


def test_what_cannot_fit_is_said(supervisor: Supervisor) -> None:
    with pytest.raises(ServingError, match="do not fit on the GPU"):
        supervisor.place(full_model(supervisor, "r0", 80), timeout=20)


SMALL_GPUS = [f"GPU-{name}, 24564" for name in "abcd"]


@pytest.mark.parametrize(
    ("gpus", "large_on", "starts"), [(4, ["GPU-b", "GPU-c"], 2), (2, ["GPU-a", "GPU-b"], 4)], ids=["room", "in turns"]
)
def test_a_model_that_one_gpu_does_not_hold_stands_on_two(
    supervisor: Supervisor, book: Path, gpus: int, large_on: list[str], starts: int
) -> None:
    gpus_are(book.parent, *SMALL_GPUS[:gpus])
    large, small = full_model(supervisor, "large", 28), full_model(supervisor, "small", 3)
    answers: list[str] = []
    for model in (small, large, small, large):
        asks(supervisor, model, answers, questions=1)
    assert answers == [small.name, large.name] * 2
    assert not (book / "wrong.txt").exists(), (book / "wrong.txt").read_text()
    started = [line.split() for line in (book / "starts.txt").read_text().splitlines()]
    assert [on for _, *on in started[:2]] == [["GPU-a"], large_on]
    assert float(started[1][0]) == pytest.approx((1.05 * 28 / 2 + 4) / (24564 / 1024), abs=0.01)
    assert len(started) == starts, "they stand beside each other where there is room, else take turns"
    last = next(server for server in supervisor.servers() if server.plan.serves == large.name)
    assert "--tensor-parallel-size 2" in last.log.read_text()


def test_a_server_stands_where_no_run_trains(supervisor: Supervisor, book: Path) -> None:
    gpus_are(book.parent, *SMALL_GPUS[:2])
    first, second = full_model(supervisor, "first", 3), full_model(supervisor, "second", 3)
    answers: list[str] = []
    asks(supervisor, first, answers, questions=1)
    db, me = open_database(supervisor.home), ProcessName.of()
    wait_until(lambda: request_for_run(db, "GPU-a", "run", me), "the first GPU for a run")
    asks(supervisor, second, answers, questions=1)

    def moved() -> bool:
        with suppress(DeviceBusy):
            return supervisor.place_now(first) is not None
        return False

    wait_until(moved, "the server that had to leave, on the other GPU")
    assert [hold.kind for hold in device_holds(db, "GPU-a")] == ["run"]
    started = [line.split()[1:] for line in (book / "starts.txt").read_text().splitlines()]
    assert started == [["GPU-a"], ["GPU-b"], ["GPU-b"]]
    assert not (book / "wrong.txt").exists(), (book / "wrong.txt").read_text()


def test_training_on_either_gpu_ends_the_server_that_stands_on_both(supervisor: Supervisor, book: Path) -> None:
    gpus_are(book.parent, *SMALL_GPUS[:2])
    model = full_model(supervisor, "large", 28)
    supervisor.place(model, timeout=30)
    db, me = open_database(supervisor.home), ProcessName.of()
    for gpu in ("GPU-a", "GPU-b"):
        assert [hold.kind for hold in device_holds(db, gpu)] == ["server"]
    wait_until(lambda: request_for_run(db, "GPU-b", "run", me), "the second GPU for a run")
    with pytest.raises(DeviceBusy, match="run"):
        supervisor.place(model, timeout=30)
    assert device_holds(db, "GPU-a") == [], "a server that waits keeps no GPU from others"
    release_device(db, "GPU-b", "run")
    wait_until(lambda: device_holds(db, "GPU-a") and device_holds(db, "GPU-b"), "the server to come back")


@pytest.mark.parametrize(("gib", "heads", "gpus"), [(28, 25, 4), (28, 40, 1), (200, 40, 4)])
def test_what_several_cannot_hold_either_is_said(
    supervisor: Supervisor, book: Path, gib: int, heads: int, gpus: int
) -> None:
    gpus_are(book.parent, *SMALL_GPUS[:gpus])
    with pytest.raises(ServingError, match="do not fit on the GPU"):
        supervisor.place(full_model(supervisor, "large", gib, heads), timeout=20)
    assert not (book / "starts.txt").exists()
