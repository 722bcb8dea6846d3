"""Which servers and adapters there are for a question, over servers that pretend to be vLLM."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.asking.model_server import ModelServer
from engine.serving import traffic
from engine.serving.processes import model_process, room
from engine.serving.processes import supervisor as supervisor_module
from engine.serving.processes.model_process import ModelProcess
from engine.serving.processes.neighbour import VARIABLE
from engine.serving.processes.plans import Plan
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import ServedModel
from engine.serving.vllm import backend


class PretendedVllm(ThreadingHTTPServer):
    """Keeps names of adapters as vLLM 0.32 does: each is given once, until it is unloaded. `base`: what it serves."""

    def __init__(self, base: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.base = base
        self.adapters: dict[str, str] = {}
        self.loads: list[str] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: PretendedVllm

    def do_GET(self) -> None:
        cards: list[dict[str, Any]] = [{"id": "base", "root": str(self.server.base)}]
        cards += [{"id": name, "root": path, "parent": "base"} for name, path in self.server.adapters.items()]
        self.reply(200, {"data": cards} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        adapters, name = self.server.adapters, asked.get("lora_name", asked.get("model"))
        if self.path == "/v1/load_lora_adapter":
            if name in adapters:
                return self.reply(400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}})
            adapters[name] = asked["lora_path"]
            self.server.loads.append(name)
            return self.reply(200, {})
        if name not in adapters:
            return self.reply(404, {"error": {"message": f"The model `{name}` does not exist."}})
        if self.path == "/v1/unload_lora_adapter":
            del adapters[name]
        self.reply(200, {"id": "1", "model": name, "choices": []})

    def reply(self, status: int, body: object) -> None:
        """Send JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedVllm]:
    """A vLLM that somebody else runs, and keeps running."""
    base = tmp_path / "prepared" / "key"
    base.mkdir(parents=True)
    with PretendedVllm(base) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(VARIABLE, server.url)
        yield server
        server.shutdown()


def adapter(home: Path, name: str) -> ServedModel:
    folder = home / "runs" / "r1" / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    base, tokenizer = home / "prepared" / "key", folder / "tokenizer.json"
    return ServedModel(f"r1/{name}", "r1", name, "adapter", folder, base, tokenizer)


def test_the_next_lab_asks_what_the_one_before_it_left_at_a_neighbour(tmp_path: Path, neighbour: PretendedVllm) -> None:
    model = adapter(tmp_path, "generalised@3")
    for lab in range(1, 3):
        place = Supervisor(tmp_path, "auto").place_now(model)
        assert place is not None and (place.url, place.model) == (neighbour.url, "r1/generalised@3")
        # What it left may have been trained again since.
        assert neighbour.loads == ["r1/generalised@3"] * lab


def test_a_neighbour_that_serves_another_base_now_is_asked_by_that_one_s_names(
    tmp_path: Path, neighbour: PretendedVllm
) -> None:
    models = ModelServer(tmp_path, "auto")
    for key in ("key", "other"):
        base = tmp_path / "prepared" / key
        (tmp_path / "prepared" / f"{key}-empty-adapter").mkdir(parents=True)
        (tmp_path / "prepared" / f"{key}-empty-adapter" / "adapter_model.safetensors").write_bytes(b"")
        neighbour.base, neighbour.adapters = base, {}
        models._supervisor._neighbour._looked = float("-inf")  # type: ignore[union-attr]
        client = models.client_for(ServedModel(f"base-{key}", "r1", "base", "base", base, base, base / "t.json"))
        assert client is not None and models.backend_of(client) == "vllm"
        assert client.complete(f"base-{key}", "Who?").model == f"base-{key}-as-adapter"


class PretendedProcess:
    """A model server that is ready when the test says so."""

    def __init__(self, home: Path, plan: Plan, reason: str, *_: Any) -> None:
        self.plan, self.state, self.url, self.reason = plan, "starting", f"http://{plan.serves}", reason
        self.id, self.message, self.begun = f"{id(self)}", "", time.monotonic()
        self.port, self.used, self.ready_since, self.part, self.devices = None, 0.0, float("inf"), 0.0, ("cpu",)

    def start(self) -> None:
        """It is started already."""

    def stop(self) -> None:
        """It has no processes."""


def test_more_bases_than_processes_on_a_processor_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each question ends the server that another one waits for, and none is ever ready."""
    monkeypatch.setattr(backend, "installed", lambda: "0.32.0 for CPUs")
    for module in (backend, supervisor_module):
        monkeypatch.setattr(module, "free_gib", lambda: 16.0)
    monkeypatch.setattr(supervisor_module, "ModelProcess", PretendedProcess)
    lab = Supervisor(tmp_path, "vllm")
    models = [ServedModel(name, name, "generalised@3", "full", tmp_path, tmp_path / name, tmp_path) for name in "abcd"]
    for _ in range(3):
        assert [lab.place_now(model) for model in models] == [None] * 4
    first = lab.servers()
    assert [server.plan.serves for server in first] == ["a", "b", "c"], "the fourth waits while they start"
    for server in first:
        server.state, server.ready_since = "ready", time.monotonic() - room.TURN_SECONDS - 1
    with traffic.asking("http://a"), traffic.asking("http://b"), traffic.asking("http://c"):
        assert lab.place_now(models[3]) is None
        assert lab.servers() == first, "and while they answer"
    lab.place_now(models[3])
    assert [server.plan.serves for server in lab.servers()] == ["b", "c", "d"], "the longest unused has had its turn"


def test_where_vllm_did_not_start_the_embedded_server_answers_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One model whose vLLM failed keeps no other one from it, and itself not for ever."""
    monkeypatch.setattr(backend, "installed", lambda: "0.32.0 for CPUs")
    for module in (backend, supervisor_module):
        monkeypatch.setattr(module, "free_gib", lambda: 16.0)
    monkeypatch.setattr(supervisor_module, "ModelProcess", PretendedProcess)
    lab, clock = Supervisor(tmp_path, "auto"), [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    broken, sound = (
        ServedModel(f"base-{key}", key, "base", "base", tmp_path, tmp_path / key, tmp_path) for key in ("a", "b")
    )

    def asked(model: ServedModel) -> list[tuple[str, str]]:
        lab.place_now(model)
        return [(server.plan.backend, server.plan.serves) for server in lab.servers()]

    assert asked(broken) == [("vllm", "a")]
    (failed,) = lab.servers()
    clock[0] += 90
    failed.state, failed.message = "failed", "CUDA out of memory"
    assert asked(broken) == []
    assert asked(broken) == [("embedded", "")]
    assert "tried again after 15 min: CUDA out of memory" in lab.servers()[0].reason
    assert asked(sound) == [("embedded", ""), ("vllm", "b")], "another base has nothing to do with it"
    clock[0] += 899
    assert ("vllm", "a") not in asked(broken)
    clock[0] += 2
    assert ("vllm", "a") in asked(broken)


def test_a_server_is_stopped_also_while_its_base_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('begun').touch()\ntime.sleep(20)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(model_process, "PREPARE", "slow")
    server = ModelProcess(tmp_path / "home", Plan("vllm", "key", tmp_path / "no base", ("base",), "r1"), "")
    server.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10
