"""Of a model's folder nothing is read but the model: no code, no kernels, no file that lies or leads elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers.utils.import_utils import KERNELS_MIN_VERSION

from engine import CODE_ROOT
from engine.models.adapter_check import check_adapter
from engine.models.architectures import causal_types, ties_by_itself
from engine.models.files import find_folder, model_problems
from engine.models.loading import load_base, load_weights
from engine.models.source import ModelError
from engine.models.view import without_unsafe
from tests.unit.model_folders import POINTER, edit, in_parts, rewrite
from tests.unit.tiny_models import build_qwen2, tiny_experiment


def kernels_and_code(folder: Path) -> None:
    """Everything by which settings could lead transformers to code, kernels or files elsewhere."""
    (folder / "evil.py").write_text("raise SystemExit('ran foreign code')")
    code = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", None]}
    edit(
        folder / "config.json", auto_map=code, _attn_implementation="kernels-community/flash-attn2",
        attn_implementation="nobody/evil", _experts_implementation="nobody/evil", experts_implementation="nobody/evil",
        use_kernels=True, transformers_weights="../x.safetensors", num_labels=10**12, name_or_path="nobody/evil",
    )  # fmt: skip
    pipe = str(folder / "pipe")
    os.mkfifo(pipe)
    files = {"tokenizer_file": pipe, "vocab_file": pipe, "merges_file": pipe, "fast_tokenizer_files": ["../x.json"]}
    edit(folder / "tokenizer_config.json", auto_map=code, init_inputs=[pipe], **files)
    (folder / "generation_config.json").write_text(json.dumps({"custom_generate": "nobody/evil", "eos_token_id": 2}))


def left_over(folder: Path) -> None:
    """Files beside a model that transformers would open or follow."""
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "/no/such", "peft_type": "LORA"})
    )
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    for name in ("README.md", "tekken.json", "modeling_llama.py", "processor_config.json"):
        os.mkfifo(folder / name)


@pytest.mark.parametrize("change", [in_parts, kernels_and_code, left_over])
def test_nothing_but_the_model_itself_is_read(folder: Path, sources: dict[str, Path], change: Any) -> None:
    change(folder)
    assert model_problems(str(folder)) == []
    loaded = load_weights(folder, "float32")
    right = load_weights(sources["llama"], "float32")
    assert {n: t.tolist() for n, t in loaded.causal.state_dict().items()} == {
        n: t.tolist() for n, t in right.causal.state_dict().items()
    }
    assert loaded.tokenizer.encode("Gene Finley") == right.tokenizer.encode("Gene Finley")
    assert loaded.causal.config._attn_implementation == right.causal.config._attn_implementation
    assert loaded.causal.name_or_path == loaded.tokenizer.name_or_path == str(folder)


def test_settings_of_an_architecture_are_kept() -> None:
    kept = {"conv_kernel": 4, "linear_conv_kernel_dim": 4, "use_mamba_kernels": True, "adapter_rank": 8, "rope": [{}]}
    assert without_unsafe({**kept, "text_config": {"auto_map": 1, "hidden_size": 2}}) == {
        **kept,
        "text_config": {"hidden_size": 2},
    }


def test_kernels_are_not_fetched_even_where_their_package_is_installed(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    (tmp_path / "kernels-1.dist-info").mkdir()
    (tmp_path / "kernels-1.dist-info" / "METADATA").write_text(f"Name: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
    code = "import engine, transformers.utils.import_utils as u; print(u.is_kernels_available())"
    path = os.pathsep.join((str(tmp_path), str(CODE_ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def test_the_hub_cache_links_to_its_own_blobs_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = tmp_path / "models--someone--tiny"
    snapshot = cached / "snapshots" / "a1"
    for part in (cached / "blobs", cached / "refs", snapshot):
        part.mkdir(parents=True)
    (cached / "refs" / "main").write_text("a1")
    for number, file in enumerate(folder.iterdir()):
        file.rename(cached / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert find_folder("someone/tiny") == snapshot
    assert model_problems("someone/tiny") == []
    assert load_base(tiny_experiment("someone/tiny")).causal.name_or_path == "someone/tiny"
    weights = snapshot / "model.safetensors"
    weights.unlink()
    (problem,) = model_problems("someone/tiny")
    assert problem.severity == "warning"
    assert "in part: the worker will download the rest" in problem.message
    with pytest.raises(ModelError, match="‘someone/tiny’ is not on this machine, and HF_HUB_OFFLINE=1 keeps"):
        load_base(tiny_experiment("someone/tiny"))
    weights.symlink_to("../../../models--another/blobs/1")
    with pytest.raises(ModelError, match=r"cannot be read|leads out"):
        load_base(tiny_experiment("someone/tiny"))


def test_weights_that_are_no_numbers(folder: Path) -> None:
    for wrong in (float("nan"), float("-inf")):
        norm = {"model.norm.weight": torch.full((16,), wrong)}
        rewrite(folder, lambda tensors, norm=norm: tensors | norm)  # type: ignore[misc]
        with pytest.raises(ModelError, match=r"hold what is no number, in model\.norm\.weight: copy"):
            load_base(tiny_experiment(folder))


def test_what_may_be_meant_is_a_warning(folder: Path, sources: dict[str, Path]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 480, "content": "<pad>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (problem,) = model_problems(str(folder))
    assert (problem.severity, "1 more tokens than" in problem.message) == ("warning", True)
    load_base(tiny_experiment(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sources["qwen2"] / name, folder / name)
    edit(folder / "config.json", vocab_size=2000)
    rewrite(folder, lambda ts: {n: torch.zeros(2000, 16) if len(t) == 480 else t for n, t in ts.items()})
    (problem,) = model_problems(str(folder))
    assert (problem.severity, "may belong to another model" in problem.message) == ("warning", True)


def test_a_check_is_repeated_when_a_file_changes(folder: Path) -> None:
    assert model_problems(str(folder)) == []
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_text(POINTER)
    assert "git lfs pull" in model_problems(str(folder))[0].message
    (folder / "model.safetensors").write_bytes(whole)
    assert model_problems(str(folder)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" + "\u0301" * 400, "neither a Hugging Face name"),
        ("中" * 90, "neither a Hugging Face name"),
        ("a" * 500, "neither a Hugging Face name"),
        ("/" + "a" * 499, "there is no folder"),
        ("https://huggingface.co/someone/model", "is an address"),
        ("~nobody-at-all/x", "there is no folder"),
        (__file__, "is a file: give the folder"),
    ],
)
def test_names_that_are_no_folder(name: str, words: str) -> None:
    (problem,) = model_problems(name)
    assert words in problem.message
    with pytest.raises(ModelError):
        load_base(tiny_experiment(name))


def test_what_is_read_of_transformers_itself() -> None:
    from transformers import AutoModelForCausalLM

    known = {kind.model_type for kind in AutoModelForCausalLM._model_mapping}
    assert {"llama", "qwen2", "gemma3_text", "gpt2"} <= causal_types()
    assert known <= causal_types() | {""}
    assert [ties_by_itself(kind) for kind in ("llama", "gpt2", "gemma", "../x")] == [False, True, True, True]


@pytest.mark.parametrize(
    "settings",
    [
        {"peft_type": "PROMPT_TUNING"},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}},
        {"megatron_config": {"a": 1}, "megatron_core": "evil"},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_an_adapter_that_is_more_than_one_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}))
    with pytest.raises(ModelError, match="no plain LoRA adapter"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match="incomplete or damaged"):
        check_adapter(tmp_path)


def test_slow_files_without_tokenizer_json_work(tmp_path: Path) -> None:
    folder = build_qwen2(tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]) + "\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    assert model_problems(str(folder)) == []
    load_base(tiny_experiment(folder))
