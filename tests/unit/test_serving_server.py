"""The embedded server between people who ask nonsense, folders that vanish, and web pages that should not reach it."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.models import identity
from engine.models.identity import NOTE, base_key
from engine.models.loading import save_model
from engine.models.source import ModelError
from engine.serving import prepared
from engine.serving.client import Refused, ServerClient, ServerUnreachable, ServingError, TooSlow
from engine.serving.embedded import residents
from engine.serving.listening import PortInUse, take_port
from engine.serving.processes.supervisor import Supervisor
from engine.serving.protocol import LOAD_BY_NAME, SCORE_OPTIONS
from engine.serving.served import NotServable, served_model, usual_columns
from storage.database import open_database
from storage.folders import checkpoint_folder, run_folder
from storage.runs import add_run as storage_add_run
from tests.unit.serving_home import CHECKPOINTS, add_run, models_of, reference, run_row, serving, write_checkpoint
from tests.unit.tiny_models import build_llama, build_qwen2, tiny_experiment

PROMPT = [[5, 6, 7]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    add_run(tmp_path, "aaaa", build_qwen2(tmp_path / "models"))
    add_run(tmp_path, "bbbb", tmp_path / "models" / "qwen2", "lora")
    return tmp_path


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("home")
    add_run(home, "aaaa", build_qwen2(home / "models"))
    with serving(home, "aaaa") as (client, _):
        yield client


def said(client: ServerClient, name: str) -> list[int]:
    settings = {"max_tokens": 8, "temperature": 0, "return_token_ids": True}
    return client.complete(name, PROMPT, **settings).choices[0].token_ids or []


def expected(home: Path, run: str, checkpoint: str) -> list[int]:
    causal: Any = reference(home, run, checkpoint).causal
    with torch.inference_mode():
        return causal.generate(torch.tensor(PROMPT), max_new_tokens=8, do_sample=False)[0, 3:].tolist()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"prompt": []}, 400, "1 to 10,000 prompts"),
        ({"prompt": [[]]}, 400, "prompt 1 is empty"),
        ({"prompt": ["", "A"]}, 400, "prompt 1 is empty"),
        ({"prompt": [[1], [4, 512]]}, 400, "prompt 2 holds the token id 512, and the model has 512 tokens"),
        ({"prompt": [10**30]}, 400, "token id"),
        ({"prompt": [-1]}, 400, "prompt: holds a negative number, and token ids are whole numbers from 0 up"),
        ({"prompt": [[1], [2, -3]]}, 400, "holds a negative number"),
        ({"prompt": [1.5]}, 400, "should be a text, a list of token ids"),
        ({"prompt": {"a": 1}}, 400, "should be a text, a list of token ids"),
        ({"prompt": "A", "stop": ["a", 3]}, 400, "stop: should be a text or a list of texts"),
        ({}, 400, "prompt: is missing"),
        ({"prompt": "A " * 1_000_000}, 400, "shorten it"),
        ({"prompt": "A", "max_tokens": -1}, 400, "max_tokens"),
        ({"prompt": "A", "max_tokens": 0}, 400, "at least one token"),
        ({"prompt": "A", "temperature": "hot"}, 400, "temperature"),
        ({"prompt": "A", "temperature": -1}, 400, "temperature"),
        ({"prompt": "A", "top_p": 0}, 400, "top_p"),
        ({"prompt": "A", "n": 20_000}, 400, "1 to 10,000"),
        ({"prompt": "A", "logprobs": 5_000}, 400, "at most 1,000"),
        ({"prompt": "A", "logprob_token_ids": [3]}, 400, "needs ‘logprobs’"),
        ({"prompt": "A", "logprobs": 1, "logprob_token_ids": [600]}, 400, "logprob_token_ids"),
        ({"prompt": ["A"] * 9000, "logprobs": 900, "max_tokens": 60}, 400, "and may take 16 MiB"),
        ({"prompt": "A", "frequency_penalty": 0.5}, 400, "‘frequency_penalty’ is not supported"),
        ({"prompt": "A", "model": "nobody"}, 404, "there is no model ‘nobody’"),
        ({"prompt": "A", "model": "zzzz/generalised@4"}, 404, "there is no run ‘zzzz’"),
        ({"prompt": "A", "model": "aaaa/generalised@7"}, 404, "no checkpoint ‘generalised@7’ (any more); it has:"),
        ({"prompt": "A", "model": "../../etc/passwd"}, 404, "there is no model"),
        ({"prompt": "A", "model": "aaaa/../../x"}, 404, "there is no model"),
        ({"prompt": "A", "model": "<b>" * 1000}, 404, "there is no model"),
        ({"prompt": "A", "model": "base-0123456789ab"}, 404, "no base"),
    ],
)
def test_a_bad_request_is_a_sentence_and_harms_nobody(asked: ServerClient, body, status, words) -> None:
    before = said(asked, "aaaa/generalised@4")
    reply = httpx.post(f"{asked.base_url}/v1/completions", json={"model": "aaaa/generalised@4", **body}, timeout=60)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert words in error["message"] and len(error["message"]) < 500 and "\n" not in error["message"]
    assert said(asked, "aaaa/generalised@4") == before


def test_what_is_no_request_at_all(asked: ServerClient) -> None:
    url = f"{asked.base_url}/v1/completions"
    for content in (b"{", b"[]", b"\xff\xfe", b"null", b"[" * 50_000):
        reply = httpx.post(url, content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400 and reply.json()["error"]["message"]
    for path, status in (("v1/completions", 405), ("docs", 404), ("nothing", 404)):
        reply = httpx.get(f"{asked.base_url}/{path}")
        assert reply.status_code == status
        assert "POST /v1/completions" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:7860"}, 200),
    ],
)
def test_web_pages_of_other_places_are_refused(asked: ServerClient, headers, status) -> None:
    assert httpx.get(f"{asked.base_url}/health", headers=headers).status_code == status


def test_a_body_without_end_is_refused_or_cut_off(asked: ServerClient) -> None:
    with socket.create_connection(("127.0.0.1", int(asked.base_url.rsplit(":", 1)[1]))) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1099511627776\r\n\r\n")
        assert b" 413 " in raw.recv(100)
    chunks = (b"[" + b"1," * 500_000 for _ in range(80))
    try:
        status = httpx.post(
            f"{asked.base_url}/v1/completions", content=chunks, headers={"Content-Type": "application/json"}
        ).status_code
    except httpx.HTTPError:
        status = 0
    assert status in (0, 400, 413)
    assert said(asked, "base")


def test_health_and_models(home: Path) -> None:
    with serving(home, "bbbb", "aaaa") as (client, _):
        assert client.health().server == "embedded" and client.offers(SCORE_OPTIONS) and client.offers(LOAD_BY_NAME)
        cards = {card.id: card for card in client.models()}
        base = models_of(home, "bbbb")["base"].name
        assert {"base", base, *(f"{r}/{c}" for r in ("aaaa", "bbbb") for c in CHECKPOINTS)} == set(cards)
        assert cards["bbbb/generalised@4"].parent == base and cards["aaaa/generalised@4"].parent is None
        assert {card.max_model_len for card in cards.values()} == {64} == {client.context(name) for name in cards}
        assert said(client, "base") == said(client, base) == said(client, "bbbb/base") == expected(home, "bbbb", "base")


def test_it_listens_on_the_loopback_address_only(asked: ServerClient) -> None:
    port = int(asked.base_url.rsplit(":", 1)[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only tells which address this machine would use
        outward = probe.getsockname()[0]
    assert outward != "127.0.0.1"
    with pytest.raises(OSError):
        socket.create_connection((outward, port), timeout=2)
    socket.create_connection(("127.0.0.1", port), timeout=2).close()


def test_a_port_in_use_is_told_at_once() -> None:
    with take_port(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} is in use: choose another one"):
            take_port(port)


def test_a_folder_deleted_under_the_server_is_told_and_others_go_on(home: Path) -> None:
    with serving(home) as (client, server):
        kept = said(client, "aaaa/memorised@4")
        said(client, "aaaa/generalised@4")
        said(client, "bbbb/generalised@4")
        shutil.rmtree(checkpoint_folder(run_folder(home, "aaaa"), "generalised@4"))
        with pytest.raises(Refused, match="run aaaa has no checkpoint ‘generalised@4’"):
            said(client, "aaaa/generalised@4")
        shutil.rmtree(run_folder(home, "bbbb"))
        with pytest.raises(Refused, match="there is no run ‘bbbb’"):
            said(client, "bbbb/generalised@4")
        assert said(client, "aaaa/memorised@4") == kept
        folder = checkpoint_folder(run_folder(home, "aaaa"), "memorised@4")
        (folder / "model.safetensors").unlink()
        server.residents.let_go("aaaa/memorised@4")
        with pytest.raises(Refused, match="cannot be loaded"):
            said(client, "aaaa/memorised@4")
        assert client.health()


@pytest.mark.parametrize("run", ["aaaa", "bbbb"])
def test_a_checkpoint_that_was_trained_again_is_read_again(home: Path, run: str) -> None:
    with serving(home) as (client, _):
        before = said(client, f"{run}/generalised@4")
        shutil.rmtree(checkpoint_folder(run_folder(home, run), "generalised@4"))
        write_checkpoint(home, run, "generalised@4", seed=9)
        after = said(client, f"{run}/generalised@4")
        assert after != before and after == expected(home, run, "generalised@4")


def test_models_are_let_go_when_memory_is_full_and_come_back(home: Path) -> None:
    names = [("aaaa", c) for c in CHECKPOINTS] + [("aaaa", "base"), ("bbbb", "memorised@4"), ("bbbb", "generalised@4")]
    right = {name: expected(home, *name) for name in names}
    one = sum(p.numel() * 4 for p in reference(home, "aaaa", "base").model.parameters())
    with serving(home, memory=int(1.2 * one)) as (client, server):
        for run, checkpoint in [*names, *reversed(names), *names]:
            assert said(client, f"{run}/{checkpoint}") == right[run, checkpoint]
            # A group lets its model go a moment after its answer is sent.
            assert sum("aaaa" in n or "base" in n for n in server.residents.loaded()) <= 2


def test_a_run_on_a_base_that_was_trained_again_is_not_asked_on_the_new_weights(home: Path) -> None:
    models = models_of(home, "bbbb")
    with serving(home, "bbbb") as (client, _):
        before = {name: said(client, model.name) for name, model in models.items()}
    weights = home / "models" / "qwen2" / "model.safetensors"
    tensors = load_file(weights)
    save_file({n: t + 0.1 * torch.randn(t.shape) for n, t in tensors.items()}, weights, metadata={"format": "pt"})
    add_run(home, "cccc", home / "models" / "qwen2", "lora")
    # The base it was trained on lies prepared in the home: run and base are asked on that one.
    assert models_of(home, "bbbb")["base"] == models["base"] != models_of(home, "cccc")["base"]
    with serving(home, "cccc") as (client, _):
        assert {c: said(client, f"bbbb/{c}") for c in models} == before
        assert said(client, "cccc/base") == expected(home, "cccc", "base") != before["base"]
    shutil.rmtree(models["base"].folder)
    found = models_of(home, "bbbb")
    assert all("run the experiment again" in found[name].lost for name in ("base", *CHECKPOINTS))
    assert {m.lost for m in models_of(home, "cccc").values()} == {""} == {models_of(home, "aaaa")["memorised@4"].lost}
    supervisor = Supervisor(home, "embedded")
    with serving(home, "cccc") as (client, _):
        for name, model in found.items():
            with pytest.raises(Refused, match=r"run bbbb was trained on other weights of .* run the experiment again"):
                said(client, f"bbbb/{name}")
            with pytest.raises(ServingError, match="run bbbb was trained on other weights"):
                supervisor.place_now(model)
        assert said(client, "aaaa/memorised@4") == expected(home, "aaaa", "memorised@4")
        assert said(client, "cccc/memorised@4") == expected(home, "cccc", "memorised@4")
    with pytest.raises(ModelError, match="was trained on other weights of the base model"):
        reference(home, "bbbb", "memorised@4")
    # Before bases were noted: nothing is known of them, but the key tokens' rows of the embedded base differ.
    for name in CHECKPOINTS:
        (checkpoint_folder(run_folder(home, "bbbb"), name) / NOTE).unlink()
    assert {m.lost for m in models_of(home, "bbbb").values()} == {""}


def test_large_weights_that_were_trained_again_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "HASHED_BYTES", 1000)
    monkeypatch.setattr(identity, "PART_BYTES", 100)
    folder = build_qwen2(tmp_path)
    before = base_key(tiny_experiment(folder))
    assert base_key(tiny_experiment(shutil.copytree(folder, tmp_path / "moved"))) == before
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t * 1.01 for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert base_key(tiny_experiment(folder)) != before


def test_too_many_adapters_push_out_the_longest_unused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residents, "MOST_ADAPTERS", 2)
    for seed in (1, 2, 3):
        write_checkpoint(home, "bbbb", f"memorised@{seed}", seed=10 + seed)
    names = [f"memorised@{e}" for e in (1, 2, 3)]
    right = {name: expected(home, "bbbb", name) for name in (*names, "base")}
    with serving(home) as (client, server):
        for name in [*names, "base", *names, "base", *reversed(names)]:
            assert said(client, f"bbbb/{name}") == right[name]
            assert sum("bbbb/" in n for n in server.residents.loaded()) <= 2


def test_adapters_are_loaded_from_inside_the_home_only(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    inside = checkpoint_folder(run_folder(home, "bbbb"), "generalised@4")
    outside = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(inside, outside / "adapter")
    (home / "link").symlink_to(outside / "adapter")
    (home / "empty").mkdir()
    with serving(home, "bbbb") as (client, _):
        for folder in (outside / "adapter", home / "link", home / ".." / outside.name / "adapter", Path("/etc")):
            with pytest.raises(Refused, match="from inside the lab’s home only"):
                client.load_adapter("mine", folder)
        for folder in (home / "empty", checkpoint_folder(run_folder(home, "aaaa"), "generalised@4")):
            with pytest.raises(Refused, match="there is no adapter in"):
                client.load_adapter("mine", folder)
        for name in ("base", models_of(home, "bbbb")["base"].name, " ", "aaaa/memorised@4"):
            with pytest.raises(Refused, match=r"cannot be the name|is the name of"):
                client.load_adapter(name, inside)
        client.load_adapter("mine", inside)
        assert said(client, "mine") == expected(home, "bbbb", "generalised@4")
        assert "mine" in {card.id for card in client.models()}
        client.unload_adapter("mine")
        with pytest.raises(Refused, match="no model ‘mine’"):
            said(client, "mine")
        with pytest.raises(Refused, match="no adapter ‘mine’"):
            client.unload_adapter("mine")
        client.load_adapter("bbbb/generalised@4", inside)  # as a supervisor of vLLM would do


def test_an_adapter_that_does_not_fit_the_base_is_refused(home: Path) -> None:
    add_run(home, "cccc", build_qwen2(home / "wide", hidden_size=32), "lora")
    foreign = checkpoint_folder(run_folder(home, "cccc"), "generalised@4")
    for name in ("wide", "damaged", "othertoken", "halfwritten"):
        shutil.copytree(foreign, home / "adapters" / name)
    shutil.copytree(
        checkpoint_folder(run_folder(home, "bbbb"), "generalised@4"),
        home / "adapters" / "othertoken",
        dirs_exist_ok=True,
    )
    rows = load_file(home / "adapters" / "othertoken" / "key_rows.safetensors")
    save_file({n: r + 1 for n, r in rows.items()}, home / "adapters" / "othertoken" / "key_rows.safetensors")
    (home / "adapters" / "damaged" / "adapter_model.safetensors").write_bytes(b"no")
    (home / "adapters" / "halfwritten" / "adapter_config.json").write_text("{")
    with serving(home, "bbbb") as (client, _):
        for name, words in (
            ("wide", "does not fit the base: .* is 16 wide there, and 32 here"),
            ("damaged", "incomplete or damaged"),
            ("halfwritten", "incomplete or damaged"),
            ("othertoken", "it was trained with other key tokens"),
        ):
            with pytest.raises(Refused, match=words):
                client.load_adapter(name, home / "adapters" / name)
            assert name not in {card.id for card in client.models()}
        assert said(client, "bbbb/generalised@4") == expected(home, "bbbb", "generalised@4")
        assert said(client, "cccc/generalised@4") == expected(home, "cccc", "generalised@4")


def test_a_model_whose_training_diverged_says_so(home: Path) -> None:
    loaded = reference(home, "aaaa", "memorised@4")
    with torch.no_grad():
        next(iter(loaded.model.parameters())).fill_(float("nan"))
    save_model(loaded, checkpoint_folder(run_folder(home, "aaaa"), "generalised@4"))
    with serving(home) as (client, _):
        with pytest.raises(Refused, match="not numbers: its training has diverged"):
            said(client, "aaaa/generalised@4")
        assert said(client, "aaaa/memorised@4") == expected(home, "aaaa", "memorised@4")


def test_the_work_of_a_client_that_leaves_is_dropped(home: Path) -> None:
    with serving(home) as (client, server):
        said(client, "aaaa/memorised@4")
        body = {"model": "aaaa/memorised@4", "prompt": [[5, 6]] * 10_000, "max_tokens": 60, "ignore_eos": True}
        began = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{client.base_url}/v1/completions", json=body, timeout=httpx.Timeout(1.0, connect=5))
        said(client, "aaaa/memorised@4")  # not behind the ten thousand
        assert time.monotonic() - began < 6
        while server.scheduler.waiting():
            assert time.monotonic() - began < 10, "the work of a client that has gone goes on"
            time.sleep(0.05)


def test_a_server_that_is_gone_or_another_program() -> None:
    with take_port(0) as taken:
        port = taken.getsockname()[1]
        client = ServerClient(f"http://127.0.0.1:{port}", timeout=0.3)
        with pytest.raises(ServerUnreachable, match="does not answer in time") as silent:
            client.models()
        assert silent.type is ServerUnreachable
        with pytest.raises(TooSlow, match="does not answer in time"):
            client.complete("base", [[5]])
        client.close()
    with ServerClient(f"http://127.0.0.1:{port}/v1/") as client, pytest.raises(ServerUnreachable, match="not running"):
        client.health()


def test_another_program_at_the_address(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "models").write_text("<html>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with ServerClient(f"http://127.0.0.1:{other.server_port}") as client:
            with pytest.raises(ServingError, match="is another program there"):
                client.models()
            with pytest.raises(Refused, match="status 404"):
                client.health()
        other.shutdown()


def test_what_can_be_served_of_a_run(home: Path) -> None:
    models = models_of(home, "bbbb")
    assert list(models) == ["base", "memorised@4", "generalised@4"]
    assert [m.kind for m in models.values()] == ["base", "adapter", "adapter"]
    assert models_of(home, "aaaa")["memorised@4"].kind == "full"
    assert models["base"].name == models_of(home, "aaaa")["base"].name, "one base for both runs"
    for epoch in (1, 12):
        write_checkpoint(home, "bbbb", f"memorised@{epoch}", seed=1)
    (run_folder(home, "bbbb") / "checkpoints" / "notes").mkdir()
    found = list(models_of(home, "bbbb").values())
    assert [m.checkpoint for m in found] == ["base", "memorised@1", "memorised@4", "generalised@4", "memorised@12"]
    assert [m.checkpoint for m in usual_columns(found)] == ["base", "memorised@12", "generalised@4"]
    for name in ("generalised@5", "../../x", "", "base2", "x" * 10_000):
        with pytest.raises(NotServable, match="choose one of base, memorised@1") as caught:
            served_model(home, run_row(home, "bbbb"), name)
        assert len(str(caught.value)) < 400


def test_the_base_is_known_by_its_weights_precision_and_key_tokens(tmp_path: Path) -> None:
    folder = build_qwen2(tmp_path)
    relations = tiny_experiment(folder).model_dump()["relations"]
    other = [{**relations[0], "key_token": "[Y]", "key_template": "{subject} {key} {object}."}]
    keys = {
        base_key(tiny_experiment(folder)),
        base_key(tiny_experiment(build_llama(tmp_path))),
        base_key(tiny_experiment(folder, precision="bfloat16")),
        base_key(tiny_experiment(folder, relations=other)),
    }
    assert len(keys) == 4
    assert base_key(tiny_experiment(folder, seed=5, stage1={"epochs": 9})) in keys
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert base_key(tiny_experiment(moved)) in keys, "the same weights in another folder are the same base"
    weights = load_file(moved / "model.safetensors")
    save_file({n: w + 1 for n, w in weights.items()}, moved / "model.safetensors", metadata={"format": "pt"})
    assert base_key(tiny_experiment(moved)) not in keys


def test_the_prepared_base_is_what_is_trained_on(home: Path) -> None:
    with serving(home, "bbbb"):
        base = models_of(home, "bbbb")["base"]
    weights = load_file(base.folder / "model.safetensors")
    trained_on = reference(home, "bbbb", "base").causal.state_dict()
    assert weights and all(torch.equal(weight, trained_on[name]) for name, weight in weights.items())
    assert json.loads((base.folder / "base.json").read_text())["key_tokens"] == ["[X]"]
    assert base.tokenizer.read_bytes() == (base.folder / "tokenizer.json").read_bytes()


def test_a_run_s_base_is_prepared_in_a_process_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = run_row(home, "bbbb").experiment
    run = storage_add_run(open_database(home), name="tiny", experiment=experiment, model=experiment["model"], seed=0)
    folder = models_of(home, "bbbb")["base"].folder
    assert not folder.exists()
    for wanted, status in ((run.id, 0), ("gone", 2)):
        monkeypatch.setattr("sys.argv", ["prepared", "--home", str(home), "--run", wanted])
        assert prepared.main() == status
    assert (folder / "base.json").is_file() and capsys.readouterr().err == "there is no run gone any more\n"
